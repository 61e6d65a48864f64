//! A UDP socket whose replies leave from the address that was asked, also when it is bound to all addresses
//! (`IP_PKTINFO`): an asker takes a reply from no other.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for bursts while the task is not running; the kernel may give less.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: UdpSocket,
    port: u16,
}

/// Where a packet came from and to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) peer: SocketAddr,
    local: Option<Local>,
}

#[derive(Debug, Clone, Copy)]
enum Local {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Received {
    /// Whether it came from the address and port it went to.
    pub(crate) fn is_own(&self, port: u16) -> bool {
        let local: Option<IpAddr> = self.local.map(|local| match local {
            Local::V4(info) => IpAddr::V4(u32::from_be(info.ipi_addr.s_addr).into()),
            Local::V6(info) => IpAddr::V6(info.ipi6_addr.s6_addr.into()),
        });
        self.peer.port() == port && local.is_some_and(|local| local.to_canonical() == self.peer.ip().to_canonical())
    }
}

impl PacketSocket {
    /// One of several sockets on one address; the kernel spreads the askers over them.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        Ok(Self { socket, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn receive(&self, packet: &mut [u8]) -> io::Result<Received> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        self.socket.async_io(Interest::READABLE, || self.receive_now(packet, &mut control)).await
    }

    fn receive_now(&self, packet: &mut [u8], control: &mut [u8]) -> io::Result<Received> {
        let mut parts = [IoSliceMut::new(packet)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(control), MsgFlags::empty())?;
        let peer = message.address.as_ref().and_then(socket_address);
        let peer = peer.ok_or_else(|| io::Error::other("packet without a sender"))?;
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
            _ => None,
        });
        Ok(Received { length: message.bytes, peer, local })
    }

    /// Sends from the address that the packet went to; an error when the socket would have to wait.
    pub(crate) fn send(&self, reply: &[u8], received: Received) -> io::Result<()> {
        let to = SockaddrStorage::from(received.peer);
        let parts = [IoSlice::new(reply)];
        let (v4, v6);
        let control: &[ControlMessage<'_>] = match received.local {
            Some(Local::V4(info)) => {
                // The route picks the interface; only the source address is asked for.
                let none = libc::in_addr { s_addr: 0 };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_spec_dst, ipi_addr: none };
                v4 = info;
                &[ControlMessage::Ipv4PacketInfo(&v4)]
            }
            Some(Local::V6(info)) => {
                // A link-local address means nothing without its interface.
                let link_local = info.ipi6_addr.s6_addr[..2] == [0xFE, 0x80];
                let ipi6_ifindex = if link_local { info.ipi6_ifindex } else { 0 };
                v6 = libc::in6_pktinfo { ipi6_addr: info.ipi6_addr, ipi6_ifindex };
                &[ControlMessage::Ipv6PacketInfo(&v6)]
            }
            None => &[],
        };
        self.socket.try_io(Interest::WRITABLE, || {
            let fd = self.socket.as_raw_fd();
            Ok(sendmsg(fd, &parts, control, MsgFlags::empty(), Some(&to))?)
        })?;
        Ok(())
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
}
