import multiprocessing
import os
import sys
import tempfile
from multiprocessing import shared_memory


def square(number):
    return number * number


def put(queue, lock, number):
    with lock:
        queue.put(number)


def main():
    assert sys.executable == "/app/env/bin/python", sys.executable
    assert os.readlink("/proc/self/exe").startswith("/usr/bin/python3"), os.readlink("/proc/self/exe")
    for method in ["fork", "spawn", "forkserver"]:
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            assert pool.map(square, range(20)) == [number * number for number in range(20)]
        queue, lock = context.Queue(), context.Lock()
        workers = [context.Process(target=put, args=(queue, lock, number)) for number in range(4)]
        for worker in workers:
            worker.start()
        assert sorted(queue.get(timeout=60) for _ in workers) == list(range(4))
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        print(method)
    memory = shared_memory.SharedMemory(create=True, size=1 << 20)
    memory.buf[0] = 7
    memory.close()
    memory.unlink()
    with tempfile.TemporaryFile() as file:
        file.write(b"x")


if __name__ == "__main__":
    main()
