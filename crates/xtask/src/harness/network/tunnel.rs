//! A tunnel device: what the kernel routes to it can be read here, packet by packet, and what is written here arrives.

use std::fs::{File, OpenOptions};

use anyhow::{Context as _, Result, ensure};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `TUNSETIFF`: gives the open file a device.
const SET_DEVICE: Opcode = opcode::write::<u32>(b'T', 202);
/// `IFF_TUN | IFF_NO_PI`: packets of the internet protocol, with nothing before them.
const BARE_PACKETS: u16 = 0x0001 | 0x1000;
const NAME_BYTES: usize = 16;

/// The kernel's `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    flags: u16,
    /// The rest of a union whose other members are longer.
    rest: [u8; 22],
}

/// Makes the device `name`, which lives as long as the file.
pub(super) fn open(name: &str) -> Result<File> {
    ensure!(name.len() < NAME_BYTES, "{name} is too long for a device");
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let file = file.context("opening /dev/net/tun")?;
    let mut request = Request { name: [0; NAME_BYTES], flags: BARE_PACKETS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    set_device(&file, request).with_context(|| format!("making the device {name}"))?;
    Ok(file)
}

#[expect(unsafe_code, reason = "no safe wrapper of this system call exists")]
fn set_device(file: &File, request: Request) -> rustix::io::Result<()> {
    // SAFETY: this request number takes a pointer to an `ifreq`, whose size and fields `Request` has.
    let set = unsafe { Setter::<SET_DEVICE, Request>::new(request) };
    // SAFETY: the kernel only reads the request, and only during the call.
    unsafe { ioctl(file, set) }
}
