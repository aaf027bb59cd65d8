//! The fence around the machine's own endpoints: the services that give a machine's credentials to whoever asks on it.
//!
//! A socket comes from the supervisor with a filter on it that drops whatever such an endpoint sends, and that cannot be taken off: no
//! connection to one comes about, however it is tried. Asking for one is refused at once besides, so that nobody waits in vain.

use super::Supervisor;
use super::listener::{Answer, Call};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

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

/// Protocols whose packets come to the socket that they are for, and its filter: by default, TCP, UDP, UDP-Lite and both ICMPs.
const PROTOCOLS: [i32; 6] = [
    0,
    libc::IPPROTO_TCP,
    libc::IPPROTO_UDP,
    libc::IPPROTO_UDPLITE,
    libc::IPPROTO_ICMP,
    libc::IPPROTO_ICMPV6,
];

/// Where the network header begins, for a filter on a socket.
const NETWORK_HEADER: u32 = 0xfff0_0000;

impl Supervisor {
    /// socket(2) for the internet's families.
    pub(super) fn socket(&self, call: &Call) -> Answer {
        let number = |at: usize| i32::try_from(call.args[at] & 0xffff_ffff).unwrap_or(-1);
        let (family, kind, protocol) = (number(0), number(1), number(2));
        // It would hear and say what it likes, also in the builder's connections.
        if kind & 0xf == libc::SOCK_RAW {
            return Errno::PERM.into();
        }
        if !PROTOCOLS.contains(&protocol) {
            return Errno::PROTONOSUPPORT.into();
        }
        match fenced_socket(family, kind, protocol) {
            Ok(file) => Answer::Descriptor {
                file,
                close_on_exec: kind & libc::SOCK_CLOEXEC != 0,
            },
            Err(error) => error.into(),
        }
    }

    /// connect(2): refuses what would lead nowhere.
    pub(super) fn connect(&mut self, call: &Call) -> Answer {
        let length = usize::try_from(call.args[2]).unwrap_or_default().min(28);
        let mut bytes = [0; 28];
        let read = self.memory.read(call.thread, call.args[1], &mut bytes);
        let Ok(read) = read else { return Answer::Continue };
        let known = bytes.get(..length.min(read)).unwrap_or_default();
        match address(known).is_some_and(is_fenced) {
            true => Errno::CONNREFUSED.into(),
            false => Answer::Continue,
        }
    }
}

fn fenced_socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let failed = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    // SAFETY: numbers go in and a number comes out.
    let number = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if number < 0 {
        return Err(failed());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
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
            _ => Err(failed()),
        }
    };
    set(
        libc::SO_ATTACH_FILTER,
        std::ptr::from_ref(&program).cast(),
        size_of::<libc::sock_fprog>(),
    )?;
    set(
        libc::SO_LOCK_FILTER,
        std::ptr::from_ref(&locked).cast(),
        size_of::<libc::c_int>(),
    )?;
    Ok(socket)
}

/// Makes the filter: packets that come from an endpoint are dropped.
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

fn is_fenced(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => ENDPOINTS_V4.contains(&address),
        IpAddr::V6(address) => ENDPOINTS_V6.contains(&address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let mut v4 = vec![2, 0, 0, 80, 169, 254, 170, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(is_fenced(address(&v4).unwrap()));
        v4[7] = 3;
        assert!(!is_fenced(address(&v4).unwrap()));
        let mut v6 = vec![10, 0, 0, 80, 0, 0, 0, 0];
        v6.extend(Ipv4Addr::new(169, 254, 169, 254).to_ipv6_mapped().octets());
        assert!(is_fenced(address(&v6).unwrap()));
        assert_eq!(address(&v6[..20]), None);
        assert_eq!(address(&[1, 0, 47]), None);
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
