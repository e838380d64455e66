// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses of hosts. A static program has no name service of its own: what the system's modules for
//! that (nsswitch.conf(5)) would load may be of another libc, so the system's getent(1) is asked.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::sys::tools::{Output, Run, Tool};

const LIMIT: Duration = Duration::from_secs(5);

/// As many as the client has room for.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        for address in addresses(host.trim_matches(['[', ']']))?.into_iter().take(MOST) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

fn addresses(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let Ok(getent) = Run::new(Tool::Getent) else {
        // Where there is none, as in small images, libc's own files and DNS have to do.
        return Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect());
    };
    let ended = getent.args(["ahosts", host]).limit(Some(LIMIT)).end(Output::Apart);
    let said = ended.map(|ended| ended.output).unwrap_or_default();
    Ok(listed(&String::from_utf8_lossy(&said)))
}

/// Each address once, in the order of getent, which has a line for each kind of socket.
fn listed(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_once() {
        let text = "2001:db8::1     STREAM host\n2001:db8::1     DGRAM\n192.0.2.1  STREAM\n192.0.2.1  RAW\n";
        let want: [IpAddr; 2] = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        assert_eq!(listed(text), want);
        assert_eq!(addresses("192.0.2.7").unwrap().len(), 1);
        assert!(addresses("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
