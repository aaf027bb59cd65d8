fn main() {
    let me = std::env::current_exe().expect("current_exe");
    assert_eq!(me.to_str(), Some("/app/target/release/caged"));
    let threads = std::thread::available_parallelism().expect("available_parallelism");
    println!("{} by {} threads", me.display(), itoa::Buffer::new().format(threads.get()));
}
