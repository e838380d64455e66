// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a server to the network devices that it is reached through, and their drivers
//! (Documentation/ABI/testing/sysfs-class-net; the routes as /proc/net has them).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::block::file_name;
use super::{For, Survey};

impl Survey<'_> {
    /// What a server is reached through; without its address, what everything is.
    pub(super) fn network(&mut self, server: Option<IpAddr>, of: For<'_>) {
        let v4 = routes(&self.text("/proc/net/route").unwrap_or_default(), v4_route);
        let v6 = routes(&self.text("/proc/net/ipv6_route").unwrap_or_default(), v6_route);
        let through = match server {
            Some(IpAddr::V4(server)) => nearest(&v4, u32::from(server).into()),
            Some(IpAddr::V6(server)) => nearest(&v6, server.into()),
            None => nearest(&v4, 0).or_else(|| nearest(&v6, 0)),
        };
        match through {
            Some(interface) => self.interface(interface, of),
            None => self.warn(format!("cannot tell which network device {} comes through", of.mount)),
        }
    }

    /// A network device, down through bonds, bridges and VLANs.
    fn interface(&mut self, name: &str, of: For<'_>) {
        let Some(directory) = self.real(&format!("/sys/class/net/{name}")) else {
            return self.warn(format!("cannot tell what {name} is, which {} comes through", of.mount));
        };
        if !self.seen.insert(directory.clone()) {
            return;
        }
        let because = format!("drives {}, through which {} comes", file_name(&directory), of.mount);
        let driven = self.drivers(&directory, &because, of.early);
        let below: Vec<_> = self
            .names(&format!("/sys/class/net/{name}"))
            .into_iter()
            .filter_map(|entry| entry.strip_prefix("lower_").map(str::to_owned))
            .collect();
        if !driven && below.is_empty() {
            self.warn(format!("cannot tell what is below {name}, which {} comes through", of.mount));
        }
        below.iter().for_each(|name| self.interface(name, of));
    }
}

/// A line of a routing table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    destination: u128,
    /// The bits that have to be the same.
    mask: u128,
    metric: u32,
}

fn routes(table: &str, line: impl Fn(&[&str]) -> Option<Route>) -> Vec<Route> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter_map(|fields| line(&fields)).filter(|route| route.interface != "lo").collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`: addresses are the bytes of the
/// network seen as a number of this machine.
fn v4_route(fields: &[&str]) -> Option<Route> {
    let [interface, destination, _, flags, _, _, metric, mask, ..] = fields else { return None };
    let address = |hex: &str| {
        let bytes = u32::from_str_radix(hex, 16).ok()?.to_ne_bytes();
        Some(u128::from(u32::from(Ipv4Addr::from(bytes))))
    };
    is_usable(flags)?;
    Some(Route {
        interface: (*interface).to_owned(),
        destination: address(destination)?,
        mask: address(mask)?,
        metric: metric.parse().ok()?,
    })
}

/// `destination length source length next-hop metric refcount use flags interface`, in hexadecimal.
fn v6_route(fields: &[&str]) -> Option<Route> {
    let [destination, length, _, _, _, metric, _, _, flags, interface] = fields else { return None };
    let length = u32::from_str_radix(length, 16).ok().filter(|length| *length <= 128)?;
    is_usable(flags)?;
    Some(Route {
        interface: (*interface).to_owned(),
        destination: u128::from_str_radix(destination, 16).map(Ipv6Addr::from).ok()?.into(),
        mask: u128::MAX.checked_shl(128 - length).unwrap_or(0),
        metric: u32::from_str_radix(metric, 16).ok()?,
    })
}

/// Whether a route is up and no rejection (RTF_UP, RTF_REJECT of linux/route.h).
fn is_usable(flags: &str) -> Option<()> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (flags & 1 != 0 && flags & 0x200 == 0).then_some(())
}

/// The device of the most specific route to an address; of the cheapest among those. The address 0
/// has default routes only.
fn nearest(routes: &[Route], address: u128) -> Option<&str> {
    let fitting = routes.iter().filter(|route| address & route.mask == route.destination & route.mask);
    let best = fitting.min_by_key(|route| (std::cmp::Reverse(route.mask), route.metric))?;
    Some(&best.interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// As a little-endian machine writes it.
    const V4: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth1\t0000000A\t00000000\t0001\t0\t0\t100\t000000FF\t0\t0\t0\n\
        eth2\t0001000A\t00000000\t0000\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

    #[cfg(target_endian = "little")]
    #[rstest]
    #[case::most_specific("10.0.1.7", "eth1")]
    #[case::cheapest("9.9.9.9", "eth0")]
    fn an_address_is_reached_by_its_route(#[case] server: Ipv4Addr, #[case] want: &str) {
        let table = routes(V4, v4_route);
        assert_eq!(table.len(), 3, "{table:?}");
        assert_eq!(nearest(&table, u32::from(server).into()), Some(want));
    }

    #[rstest]
    #[case::specific("fd00::1", Some("eth1"))]
    #[case::default("2001:db8::1", Some("eth0"))]
    fn so_is_one_of_version_6(#[case] server: Ipv6Addr, #[case] want: Option<&str>) {
        let zero = "0".repeat(32);
        let line = |destination: &str, length: &str, flags: &str, interface: &str| {
            format!(
                "{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {interface}\n"
            )
        };
        let table = line(&zero, "00", "00000003", "eth0")
            + &line(&format!("fd{}", "0".repeat(30)), "08", "00000001", "eth1")
            + &line(&zero, "00", "00200200", "lo");
        let table = routes(&table, v6_route);
        assert_eq!(table.len(), 2, "{table:?}");
        assert_eq!(nearest(&table, server.into()), want);
    }
}
