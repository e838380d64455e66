// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a file system down to the hardware: what carries it, through device mapper, md, bcache and
//! pools, and the drivers of the devices on the way (Documentation/ABI/testing/sysfs-*).

use std::path::{Path, PathBuf};

use super::fstab::{self, device_path};
use super::{For, Need, Survey};
use crate::sys::files;
use crate::sys::mounts::{self, Mount};

/// Virtual disks that are on nothing that we could follow, or that are followed elsewhere.
const WITHOUT_SLAVES: [&str; 8] = ["loop", "ramdisk", "zram", "zvol", "nbd", "rbd", "aoe", "drbd"];

impl Survey<'_> {
    /// A mounted file system, and what it is on.
    pub(super) fn carried(&mut self, mount: &Mount, of: For<'_>) {
        self.file_system(&mount.point, &mount.fs, &mount.source, of.early);
        // Only what is on one block device has its number.
        if !mount.number.starts_with("0:") {
            return self.disk_by_number(&mount.number, of);
        }
        match mount.fs.as_str() {
            "zfs" => self.pool(mount.source.split('/').next().unwrap_or_default(), of),
            "btrfs" => self.btrfs(&mount.source, of),
            "overlay" => self.layers(mount, of),
            "nfs" | "nfs4" | "cifs" | "smb3" => {
                self.network(mount.option("addr").and_then(|address| address.parse().ok()), of);
            }
            "ceph" => self.network(None, of),
            _ => self.sources(&mount.fs, &mount.source, of),
        }
    }

    /// A file system that is not mounted now, as fstab has it.
    pub(super) fn listed(&mut self, spec: &str, fs: &str, of: For<'_>) {
        if !matches!(fs, "auto" | "none") {
            self.file_system(of.mount, fs, spec, of.early);
        }
        match fs {
            "zfs" => self.pool(spec.split('/').next().unwrap_or_default(), of),
            _ => self.sources(fs, spec, of),
        }
    }

    fn file_system(&mut self, point: &str, fs: &str, source: &str, early: bool) {
        let article = if fs.starts_with(['a', 'e', 'i', 'o', 'x']) { "an" } else { "a" };
        let kind = fs.split('.').next().unwrap_or(fs).replace("fuseblk", "fuse");
        self.need(Need {
            aliases: vec![format!("fs-{kind}")],
            names: vec![kind],
            because: format!("{point} is {article} {fs} file system ({source})"),
            early,
        });
    }

    /// A device by its path; bcachefs joins several with colons. What is no path is no device: a
    /// server's directory, a tag, a word.
    fn sources(&mut self, fs: &str, source: &str, of: For<'_>) {
        let devices: Vec<_> = if fs == "bcachefs" { source.split(':').collect() } else { vec![source] };
        for path in devices.into_iter().filter_map(device_path) {
            match self.disk_of_node(&path).or_else(|| self.disk_of_volume(&path)) {
                Some(disk) => self.disk(&disk, of),
                None => {
                    self.warn(format!("cannot tell which device {source} is, which carries {}", of.mount))
                }
            }
        }
    }

    fn disk_by_number(&mut self, number: &str, of: For<'_>) {
        match self.real(&format!("/sys/dev/block/{number}")) {
            Some(disk) => self.disk(&disk, of),
            None => self
                .warn(format!("cannot tell which device carries {}: there is no {number} in /sys", of.mount)),
        }
    }

    fn disk_by_name(&mut self, name: &str, of: For<'_>) {
        match self.real(&format!("/sys/class/block/{name}")) {
            Some(disk) => self.disk(&disk, of),
            None => self.warn(format!("cannot tell what {name} is, which carries {}", of.mount)),
        }
    }

    /// The directory in /sys of the device that a node in /dev stands for.
    fn disk_of_node(&self, path: &str) -> Option<PathBuf> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let node = fs_err::canonicalize(self.root.path(path)).ok()?;
        let meta = fs_err::metadata(&node).ok()?;
        if meta.file_type().is_block_device() {
            let number = meta.rdev();
            let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
            return self.real(&format!("/sys/dev/block/{major}:{minor}"));
        }
        self.real(&format!("/sys/class/block/{}", node.file_name()?.to_str()?))
    }

    /// The device of an encrypted volume that is not open now.
    fn disk_of_volume(&self, path: &str) -> Option<PathBuf> {
        let crypttab = self.text("/etc/crypttab")?;
        let device = fstab::encrypted(&crypttab, path.strip_prefix("/dev/mapper/")?)?;
        self.disk_of_node(&device_path(device)?)
    }

    /// The members of a pool, which only udev's database tells (udev's blkid builtin calls a pool's
    /// name its label).
    fn pool(&mut self, pool: &str, of: For<'_>) {
        let mut members = Vec::new();
        for name in self.names("/sys/class/block") {
            let known = self.udev(&name).unwrap_or_default();
            let says = |what: &str| known.lines().any(|line| line == what);
            if says("E:ID_FS_TYPE=zfs_member") && says(&format!("E:ID_FS_LABEL={pool}")) {
                members.push(name);
            }
        }
        if members.is_empty() {
            self.warn(format!("cannot tell which devices the pool {pool} is on, which carries {}", of.mount));
        }
        members.iter().for_each(|name| self.disk_by_name(name, of));
    }

    fn udev(&self, name: &str) -> Option<String> {
        let number = self.text(&format!("/sys/class/block/{name}/dev"))?;
        self.text(&format!("/run/udev/data/b{number}"))
    }

    /// All members of the file system that a device is one of.
    fn btrfs(&mut self, source: &str, of: For<'_>) {
        let device = self.disk_of_node(source).and_then(|disk| Some(disk.file_name()?.to_str()?.to_owned()));
        let systems = self.names("/sys/fs/btrfs").into_iter();
        let mut systems: Vec<_> = systems
            .map(|uuid| self.names(&format!("/sys/fs/btrfs/{uuid}/devices")))
            .filter(|members| !members.is_empty())
            .collect();
        let one =
            systems.iter().position(|members| device.as_ref().is_some_and(|device| members.contains(device)));
        match one {
            Some(at) => systems.swap_remove(at).iter().for_each(|name| self.disk_by_name(name, of)),
            // Mounted without udev, the source may be called /dev/root.
            None if systems.len() == 1 => systems[0].iter().for_each(|name| self.disk_by_name(name, of)),
            None => {
                self.warn(format!("cannot tell which devices {source} is on, which carries {}", of.mount))
            }
        }
    }

    /// What an overlay is made of, where its directories can still be seen.
    fn layers(&mut self, mount: &Mount, of: For<'_>) {
        let mounts = self.mounts;
        let lower = mount.option("lowerdir").unwrap_or_default().split(':');
        let directories = lower.chain(mount.option("upperdir")).filter(|path| path.starts_with('/'));
        let found: Vec<_> = directories.map(|path| mounts::around(mounts, path)).collect();
        if found.is_empty() || found.iter().any(|found| found.is_none_or(|found| found.fs == "overlay")) {
            self.warn(format!("cannot tell what is below the overlay on {}", of.mount));
        }
        for below in found.into_iter().flatten().filter(|found| found.fs != "overlay") {
            self.carried(below, of);
        }
    }

    /// A disk or a partition by its directory in /sys/devices.
    fn disk(&mut self, directory: &Path, of: For<'_>) {
        if !self.seen.insert(directory.to_owned()) {
            return;
        }
        let is_partition = directory.join("partition").exists();
        let disk = directory.parent().filter(|_| is_partition).unwrap_or(directory);
        let name = file_name(disk);
        let because = format!("drives {name}, which carries {}", of.mount);
        self.drivers(disk, &because, of.early);
        let below = |directory: &Path| files::names(&directory.join("slaves")).unwrap_or_default();
        let mut slaves = below(directory);
        if is_partition {
            slaves.extend(below(disk));
        }
        if disk.starts_with(self.devices.join("virtual")) {
            self.virtual_disk(disk, slaves.is_empty(), of);
        }
        self.remote_disk(disk, of);
        slaves.iter().for_each(|slave| self.disk_by_name(slave, of));
    }

    /// A disk that is made by a module, not found by one.
    fn virtual_disk(&mut self, disk: &Path, is_lowest: bool, of: For<'_>) {
        let name = file_name(disk);
        if let Some(subsystem) = disk.parent().filter(|parent| is_nvme_subsystem(parent)) {
            // The head of several paths; each controller is one.
            let controllers = files::names(subsystem).unwrap_or_default();
            for controller in controllers.iter().filter(|name| is_nvme_controller(name)) {
                if let Ok(controller) = fs_err::canonicalize(subsystem.join(controller)) {
                    let because = format!("drives {name}, which carries {}", of.mount);
                    self.drivers(&controller, &because, of.early);
                    self.nvme_over_fabrics(&controller, of);
                }
            }
            return;
        }
        let kind = self.kind(disk).unwrap_or_default();
        let made_by = |module: &str| Need {
            names: vec![module.to_owned()],
            aliases: Vec::new(),
            because: format!("makes {name}, which carries {}", of.mount),
            early: of.early,
        };
        match kind.as_str() {
            "device-mapper" => {
                self.need(made_by("dm_mod"));
                // The prefix tells who made it (Documentation/ABI/testing/sysfs-block-dm).
                let uuid = self.text_of(&disk.join("dm/uuid")).unwrap_or_default();
                let target = [("CRYPT-", "dm_crypt"), ("mpath-", "dm_multipath"), ("VDO-", "kvdo")];
                if let Some((_, module)) = target.iter().find(|(prefix, _)| uuid.starts_with(prefix)) {
                    self.need(made_by(module));
                }
            }
            "md" | "mdp" => {
                self.need(made_by("md_mod"));
                if let Some(level) = self.text_of(&disk.join("md/level")) {
                    let one_module = matches!(level.as_str(), "raid4" | "raid5" | "raid6");
                    self.need(made_by(if one_module { "raid456" } else { &level }));
                }
            }
            "zvol" => {
                self.need(made_by("zfs"));
                let known = self.udev(&name).unwrap_or_default();
                let pool = known.lines().find_map(|line| line.strip_prefix("S:zvol/")?.split('/').next());
                match pool {
                    Some(pool) => self.pool(pool, of),
                    None => {
                        self.warn(format!("cannot tell which pool {name} is in, which carries {}", of.mount))
                    }
                }
            }
            "loop" => {
                self.need(made_by("loop"));
                self.loop_file(disk, of);
            }
            "" | "blkext" => {}
            other => self.need(made_by(other)),
        }
        if matches!(kind.as_str(), "nbd" | "rbd" | "aoe") {
            self.network(None, of);
        }
        if is_lowest && !WITHOUT_SLAVES.contains(&kind.as_str()) {
            self.warn(format!("cannot tell what is below {name}, which carries {}", of.mount));
        }
    }

    /// The driver that a disk's major number belongs to (proc(5), /proc/devices).
    fn kind(&self, disk: &Path) -> Option<String> {
        let number = self.text_of(&disk.join("dev"))?;
        let (major, _) = number.split_once(':')?;
        let devices = self.text("/proc/devices")?;
        let (_, blocks) = devices.split_once("Block devices:")?;
        let found =
            blocks.lines().map(str::trim).find_map(|line| line.strip_prefix(major)?.strip_prefix(' '))?;
        Some(found.trim().to_owned())
    }

    fn loop_file(&mut self, disk: &Path, of: For<'_>) {
        let mounts = self.mounts;
        let file = self.text_of(&disk.join("loop/backing_file")).unwrap_or_default();
        // The initramfs may have mounted it where nobody sees it any more.
        match mounts::around(mounts, &file).filter(|mount| file.starts_with('/') && mount.point != of.mount) {
            Some(below) => self.carried(below, of),
            None => self.warn(format!("cannot tell where the file {file} is, which carries {}", of.mount)),
        }
    }

    /// A disk that comes over a network: its host has no hardware above it.
    fn remote_disk(&mut self, disk: &Path, of: For<'_>) {
        if let Some(controller) = disk.ancestors().find(|path| is_nvme_controller(&file_name(path))) {
            self.nvme_over_fabrics(controller, of);
        }
        let part = |prefix: &str| {
            let number = |name: &str| name.strip_prefix(prefix).is_some_and(is_number);
            disk.ancestors().map(file_name).find(|name| number(name))
        };
        let (Some(host), Some(session)) = (part("host"), part("session")) else { return };
        let Some(driver) = self.text(&format!("/sys/class/scsi_host/{host}/proc_name")) else { return };
        self.need(Need {
            names: vec![driver.clone()],
            aliases: Vec::new(),
            because: format!("drives {}, which carries {}", file_name(disk), of.mount),
            early: of.early,
        });
        // Adapters that speak iSCSI themselves are on the bus.
        if matches!(driver.as_str(), "iscsi_tcp" | "iser") {
            let connection = session.replace("session", "connection");
            let address = self.text(&format!("/sys/class/iscsi_connection/{connection}:0/address"));
            self.network(address.and_then(|address| address.parse().ok()), of);
        }
    }

    fn nvme_over_fabrics(&mut self, controller: &Path, of: For<'_>) {
        let transport = self.text_of(&controller.join("transport")).unwrap_or_default();
        if !matches!(transport.as_str(), "tcp" | "rdma" | "fc") {
            return;
        }
        self.need(Need {
            names: vec![format!("nvme_{transport}")],
            aliases: Vec::new(),
            because: format!("drives {}, which carries {}", file_name(controller), of.mount),
            early: of.early,
        });
        if transport != "fc" {
            let address = self.text_of(&controller.join("address")).unwrap_or_default();
            let address = address.split(',').find_map(|part| part.strip_prefix("traddr=")?.parse().ok());
            self.network(address, of);
        }
    }
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `nvme0`, not `nvme0n1`.
fn is_nvme_controller(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(is_number)
}

fn is_nvme_subsystem(path: &Path) -> bool {
    file_name(path).strip_prefix("nvme-subsys").is_some_and(is_number)
}
