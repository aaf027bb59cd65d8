//! The fence around the machine's own endpoints: the services that give a machine's credentials to whoever asks on it.
//!
//! A command's sockets are made by the supervisor, with a filter on them that drops whatever such an endpoint sends and cannot be taken
//! off: however it is tried, no answer comes. Where the kernel wants CAP_NET_ADMIN for a filter, the supervisor keeps its own handle of a
//! stream until that is connected, and connects it itself, to the address as it was when it was looked at: another thread may change it a
//! moment later. Datagrams are not looked at then; the endpoints speak TCP.

use super::Supervisor;
use super::ids::as_user;
use super::listener::{Answer, Call, Listener};
use super::processes::{owner, process_of};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// The endpoints. Sources: EC2 User Guide, "Instance metadata"; ECS Developer Guide, "Task metadata endpoint"; EKS User Guide, "Pod
/// Identity"; other clouds have theirs at the first one as well.
const ENDPOINTS_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
];
const ENDPOINTS_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
];

/// Protocols of datagrams that a command may use: by default, UDP, UDP-Lite and both ICMPs. The endpoints speak TCP.
const DATAGRAMS: [i32; 5] = [
    0,
    libc::IPPROTO_UDP,
    libc::IPPROTO_UDPLITE,
    libc::IPPROTO_ICMP,
    libc::IPPROTO_ICMPV6,
];
/// Longest address that the kernel takes: `sockaddr_storage`.
const MAX_ADDRESS: usize = 128;
/// Streams that may be held without being looked at.
const MANY: usize = 200;
/// Longest time that a connection takes to come about, by the kernel's default.
const PATIENCE: Timespec = Timespec {
    tv_sec: 200,
    tv_nsec: 0,
};

/// What is known of a command's socket.
#[derive(Debug)]
enum Socket {
    /// A stream that is not connected, and our handle of it.
    Fresh(OwnedFd),
    /// A stream that is being connected.
    Connecting,
    /// A stream that is or was connected, or listens.
    Used,
    /// No stream of the internet.
    Other,
}

/// A command's sockets, by their inodes. One that is not among them came of another, and is connected.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    all: HashMap<u64, Arc<Mutex<Socket>>>,
    /// Under which number a process was given a stream last: for one that hides its open files.
    given: HashMap<(i32, i32), u64>,
}

/// Where the network header begins, for a filter on a socket.
const NETWORK_HEADER: u32 = 0xfff0_0000;

impl Supervisor {
    /// socket(2).
    pub(super) fn socket(&mut self, call: &Call) -> Answer {
        let number = |at: usize| super::i32_of(call.args[at]);
        let (family, kind, protocol) = (number(0), number(1), number(2));
        let is_internet = family != libc::AF_UNIX;
        let is_stream = match kind & 0xf {
            // It would hear and say what it likes, also in the builder's connections.
            libc::SOCK_RAW if is_internet => return Errno::PERM.into(),
            libc::SOCK_STREAM if is_internet => true,
            _ => false,
        };
        // Others carry TCP of their own.
        let is_known = match (is_internet, is_stream) {
            (false, _) => true,
            (true, true) => [0, libc::IPPROTO_TCP].contains(&protocol),
            (true, false) => DATAGRAMS.contains(&protocol),
        };
        if !is_known {
            return Errno::PROTONOSUPPORT.into();
        }
        match self.make_socket(family, kind, protocol, is_stream) {
            Ok(file) => self.given(call, file, kind & libc::SOCK_CLOEXEC != 0),
            Err(error) => error.into(),
        }
    }

    /// Notes under which number the command has a socket.
    fn given(&mut self, call: &Call, file: OwnedFd, close_on_exec: bool) -> Answer {
        let inode = rustix::fs::fstat(&file).map(|stat| stat.st_ino);
        match self.listener.give_only(call, &file, close_on_exec) {
            Ok(number) => {
                if let (Ok(inode), Some(process)) = (inode, process_of(call.thread)) {
                    self.sockets.given.insert((process, number), inode);
                }
                Answer::Value(number.into())
            }
            Err(error) => error.into(),
        }
    }

    fn make_socket(&mut self, family: i32, kind: i32, protocol: i32, is_stream: bool) -> Result<OwnedFd, Errno> {
        if self.sockets.all.len() % MANY == MANY - 1 {
            self.forget_closed(None);
        }
        // SAFETY: numbers go in and a number comes out.
        let number = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
        if number < 0 {
            return Err(last_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
        let own = unsafe { OwnedFd::from_raw_fd(number) };
        let inode = rustix::fs::fstat(&own)?.st_ino;
        let is_filtered = family != libc::AF_UNIX && attach_filter(&own).is_ok();
        if !is_stream || is_filtered {
            self.sockets.all.insert(inode, Arc::new(Mutex::new(Socket::Other)));
            return Ok(own);
        }
        let theirs = rustix::io::fcntl_dupfd_cloexec(&own, 3)?;
        self.sockets.all.insert(inode, Arc::new(Mutex::new(Socket::Fresh(own))));
        Ok(theirs)
    }

    /// connect(2).
    pub(super) fn connect(&mut self, call: &Call) -> Option<Answer> {
        let inode = match self.inode(call) {
            Ok(inode) => inode,
            Err(error) => return Some(error.into()),
        };
        let Some(socket) = self.sockets.all.get(&inode).map(Arc::clone) else {
            return Some(Errno::ISCONN.into());
        };
        let state = std::mem::replace(
            &mut *socket.lock().unwrap_or_else(PoisonError::into_inner),
            Socket::Connecting,
        );
        let put = |state: Socket| *socket.lock().unwrap_or_else(PoisonError::into_inner) = state;
        let own = match state {
            Socket::Fresh(own) => own,
            Socket::Connecting => return Some(Errno::ALREADY.into()),
            Socket::Used => {
                put(Socket::Used);
                return Some(Errno::ISCONN.into());
            }
            Socket::Other => {
                put(Socket::Other);
                // For one with a filter this is for speed alone: nobody is to wait in vain.
                let is_vain = self.address(call).is_ok_and(|address| is_of_endpoint(&address));
                return Some(match is_vain {
                    true => Errno::CONNREFUSED.into(),
                    false => Answer::Continue,
                });
            }
        };
        let address = match self.address(call) {
            Ok(address) if is_of_endpoint(&address) => Err(Errno::CONNREFUSED),
            other => other,
        };
        match address {
            Ok(address) => self.connect_own(call, &socket, own, address),
            Err(error) => {
                put(Socket::Fresh(own));
                Some(error.into())
            }
        }
    }

    /// Connects our handle. Where that waits it is done by a thread, which answers.
    fn connect_own(&self, call: &Call, socket: &Arc<Mutex<Socket>>, own: OwnedFd, address: Vec<u8>) -> Option<Answer> {
        let (call, socket) = (*call, Arc::clone(socket));
        let waits = !rustix::fs::fcntl_getfl(&own).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK));
        if !waits {
            let result = connect(&own, &address);
            if result == Err(Errno::INPROGRESS) {
                start(move || {
                    let _ready = poll(&mut [PollFd::new(&own, PollFlags::OUT)], Some(&PATIENCE));
                    drop(own);
                    *socket.lock().unwrap_or_else(PoisonError::into_inner) = Socket::Used;
                });
                return Some(Errno::INPROGRESS.into());
            }
            return Some(settle(&socket, own, result));
        }
        let Ok(listener) = self.listener.again() else {
            return Some(Errno::MFILE.into());
        };
        start(move || {
            let result = connect(&own, &address);
            let answer = settle(&socket, own, result);
            Listener::answer(&listener, &call, answer);
        });
        None
    }

    /// listen(2): it is no stream to connect any more, and ends when the command closes it.
    pub(super) fn listen(&self, call: &Call) -> Answer {
        let known = self.inode(call).ok().and_then(|inode| self.sockets.all.get(&inode));
        if let Some(socket) = known {
            let mut state = socket.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, Socket::Fresh(_)) {
                *state = Socket::Used;
            }
        }
        Answer::Continue
    }

    /// bind(2): an address must not be taken by what the command has closed.
    pub(super) fn bind(&mut self, call: &Call) -> Answer {
        let own = self.inode(call).ok();
        self.forget_closed(own);
        Answer::Continue
    }

    /// Closes our handles of streams that the command has closed.
    fn forget_closed(&mut self, but: Option<u64>) {
        let is_fresh = |socket: &Arc<Mutex<Socket>>| {
            matches!(*socket.lock().unwrap_or_else(PoisonError::into_inner), Socket::Fresh(_))
        };
        if !self
            .sockets
            .all
            .iter()
            .any(|(inode, socket)| Some(*inode) != but && is_fresh(socket))
        {
            return;
        }
        let open: std::collections::HashSet<u64> =
            self.world.processes.list().into_iter().flat_map(open_sockets).collect();
        self.sockets
            .all
            .retain(|inode, socket| Some(*inode) == but || !is_fresh(socket) || open.contains(inode));
    }

    /// The inode of the socket that a call's first argument is. A process that has changed its user hides its files; it is taken at the
    /// number that it was given.
    fn inode(&self, call: &Call) -> Result<u64, Errno> {
        let number = super::i32_of(call.args[0]);
        let read = || rustix::fs::readlink(format!("/proc/{}/fd/{number}", call.thread), Vec::new());
        let link = match read() {
            Err(Errno::ACCESS | Errno::PERM) => match as_user(owner(call.thread).ok_or(Errno::SRCH)?, read) {
                Err(Errno::ACCESS | Errno::PERM) => {
                    let process = process_of(call.thread).ok_or(Errno::SRCH)?;
                    let given = self.sockets.given.get(&(process, number));
                    return given.copied().ok_or(Errno::ACCESS);
                }
                link => link,
            },
            link => link,
        };
        match link {
            Ok(link) => link.to_str().ok().and_then(inode_in).ok_or(Errno::NOTSOCK),
            Err(Errno::NOENT) => Err(Errno::BADF),
            Err(error) => Err(error),
        }
    }

    fn address(&mut self, call: &Call) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(call.args[2] & 0xffff_ffff).unwrap_or(usize::MAX);
        if length > MAX_ADDRESS {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; length];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            done += self.memory.read(call.thread, call.args[1] + done as u64, rest)?;
        }
        Ok(bytes)
    }
}

/// Notes how connecting went: after a failure the command may try again.
fn settle(socket: &Mutex<Socket>, own: OwnedFd, result: Result<(), Errno>) -> Answer {
    let (state, answer) = match result {
        Ok(()) => (Socket::Used, Answer::Value(0)),
        Err(error) => (Socket::Fresh(own), error.into()),
    };
    *socket.lock().unwrap_or_else(PoisonError::into_inner) = state;
    answer
}

/// A thread that needs little. One that cannot be started leaves its call without an answer until the command ends.
fn start(work: impl FnOnce() + Send + 'static) {
    drop(std::thread::Builder::new().stack_size(64 << 10).spawn(work));
}

fn connect(socket: &OwnedFd, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of the address, which live through the call; the socket is open.
    match unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn inode_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The sockets that a process has open.
fn open_sockets(process: i32) -> Vec<u64> {
    let Some(owner) = owner(process) else { return Vec::new() };
    as_user(owner, || {
        let entries = std::fs::read_dir(format!("/proc/{process}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter_map(|link| inode_in(link.to_str()?)).collect()
    })
}

/// Puts a filter on a socket, for good: packets that come from an endpoint are dropped.
fn attach_filter(socket: &OwnedFd) -> Result<(), Errno> {
    let filter = filter();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or_default(),
        filter: filter.as_ptr().cast_mut(),
    };
    let locked: libc::c_int = 1;
    let set = |option: libc::c_int, value: *const libc::c_void, size: usize| {
        let size = libc::socklen_t::try_from(size).unwrap_or_default();
        // SAFETY: the kernel reads `size` bytes at `value`, which are there and live through the call, as does what they point to.
        match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    };
    let size = size_of::<libc::sock_fprog>();
    set(libc::SO_ATTACH_FILTER, std::ptr::from_ref(&program).cast(), size)?;
    set(
        libc::SO_LOCK_FILTER,
        std::ptr::from_ref(&locked).cast(),
        size_of::<libc::c_int>(),
    )
}

/// Makes the filter's program.
fn filter() -> Vec<libc::sock_filter> {
    const LD_WORD: u16 = 0x20;
    const LD_BYTE: u16 = 0x30;
    const SHIFT: u16 = 0x74;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = Vec::new();
    let mut push = |code: u16, k: u32, jt: u8, jf: u8| program.push(libc::sock_filter { code, jt, jf, k });
    push(LD_BYTE, NETWORK_HEADER, 0, 0);
    push(SHIFT, 4, 0, 0);
    let v4 = u8::try_from(ENDPOINTS_V4.len() * 2 + 2).unwrap_or(u8::MAX);
    push(JUMP_EQUAL, 4, 0, v4);
    push(LD_WORD, NETWORK_HEADER + 12, 0, 0);
    for endpoint in ENDPOINTS_V4 {
        push(JUMP_EQUAL, endpoint.to_bits(), 0, 1);
        push(RETURN, 0, 0, 0);
    }
    push(RETURN, u32::MAX, 0, 0);
    for endpoint in ENDPOINTS_V6 {
        let words = endpoint.to_bits().to_be_bytes();
        for (at, word) in words.chunks(4).enumerate() {
            let word = word.try_into().map_or(0, u32::from_be_bytes);
            let at = u32::try_from(at).unwrap_or_default();
            push(LD_WORD, NETWORK_HEADER + 8 + 4 * at, 0, 0);
            // To the next endpoint when a word differs.
            let left = u8::try_from((3 - at) * 2 + 1).unwrap_or_default();
            push(JUMP_EQUAL, word, 0, left);
        }
        push(RETURN, 0, 0, 0);
    }
    push(RETURN, u32::MAX, 0, 0);
    program
}

/// Tells whether a sockaddr is that of an endpoint.
fn is_of_endpoint(bytes: &[u8]) -> bool {
    match address(bytes) {
        Some(IpAddr::V4(address)) => ENDPOINTS_V4.contains(&address),
        Some(IpAddr::V6(address)) => ENDPOINTS_V6.contains(&address),
        None => false,
    }
}

/// Reads the address out of a sockaddr.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(IpAddr::from(octets).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let mut v4 = vec![2, 0, 0, 80, 169, 254, 170, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_of_endpoint(&v4));
        v4[7] = 3;
        assert!(!is_of_endpoint(&v4));
        let mut v6 = vec![10, 0, 0, 80, 0, 0, 0, 0];
        v6.extend(Ipv4Addr::new(169, 254, 169, 254).to_ipv6_mapped().octets());
        v6.extend([0, 0, 0, 0]);
        assert!(is_of_endpoint(&v6));
        v6[8..24].copy_from_slice(&ENDPOINTS_V6[1].octets());
        assert!(is_of_endpoint(&v6));
        assert_eq!(address(&v6[..20]), None);
        assert_eq!(address(&[1, 0, 47]), None);
        assert_eq!(inode_in("socket:[123]"), Some(123));
        assert_eq!(inode_in("pipe:[123]"), None);
    }

    /// Runs the filter's program on the head of a packet.
    fn passes(packet: &[u8]) -> bool {
        let program = filter();
        let (mut at, mut value) = (0, 0u32);
        loop {
            let one = program[at];
            let offset = one.k.wrapping_sub(NETWORK_HEADER) as usize;
            at += 1;
            match one.code {
                0x20 => value = u32::from_be_bytes(packet[offset..offset + 4].try_into().unwrap()),
                0x30 => value = u32::from(packet[offset]),
                0x74 => value >>= one.k,
                0x15 => at += usize::from(if value == one.k { one.jt } else { one.jf }),
                _ => return one.k != 0,
            }
        }
    }

    #[test]
    fn packets_of_endpoints_are_dropped() {
        let v4 = |source: Ipv4Addr| {
            let mut packet = vec![0x45; 20];
            packet[12..16].copy_from_slice(&source.octets());
            packet
        };
        let v6 = |source: Ipv6Addr| {
            let mut packet = vec![0x60; 40];
            packet[8..24].copy_from_slice(&source.octets());
            packet
        };
        assert!(passes(&v4(Ipv4Addr::new(169, 254, 169, 253))) && passes(&v4(Ipv4Addr::LOCALHOST)));
        assert!(passes(&v6(Ipv6Addr::LOCALHOST)) && passes(&v6("fd00:ec2::253".parse().unwrap())));
        assert!(ENDPOINTS_V4.iter().all(|one| !passes(&v4(*one))));
        assert!(ENDPOINTS_V6.iter().all(|one| !passes(&v6(*one))));
    }
}
