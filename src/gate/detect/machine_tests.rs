// SPDX-License-Identifier: MIT OR Apache-2.0
//! What made-up machines need to boot: from what is mounted down to the hardware.

use rstest::rstest;

use super::Detected;
use super::fixture::{HBA, Machine, NEW, NOTHING, RUNNING};

#[rstest]
#[case::sata("8:1", "/dev/sda1")]
#[case::virtio("254:1", "/dev/vda1")]
fn an_ordinary_machine_needs_no_module_of_others(#[case] number: &str, #[case] source: &str) {
    let machine = Machine::new();
    machine.ordinary().mount("/", number, "ext4", source, "");
    machine.scsi("sda", "0000:00:17.0", "ahci pci:v00008086d00002922sv0sd0bc01sc06i01");
    machine
        .device("pci0000:00/0000:00:02.0", "virtio-pci")
        .device("pci0000:00/0000:00:02.0/virtio1", "virtio_blk");
    machine.disk("pci0000:00/0000:00:02.0/virtio1/block/vda", "254:0");
    machine.partition("pci0000:00/0000:00:02.0/virtio1/block/vda/vda1", "254:1");
    machine.package("zfs", &["spl", "zfs"]).package("nvidia", &["nvidia"]).package("wl", &["wl"]);
    assert_eq!(machine.ask(), Detected::default());
}

/// A pool on two disks, one of which is on a controller whose driver is not the kernel's.
#[test]
fn a_zfs_root_needs_zfs_and_the_drivers_of_the_pools_members() {
    let machine = Machine::new();
    machine.ordinary().mount("/", "0:25", "zfs", "rpool/ROOT/debian", "xattr");
    machine.scsi("sda", "0000:00:17.0", "ahci").scsi("sdb", "0000:02:00.0", &format!("mpt3sas {HBA}"));
    machine.scsi("sdc", "0000:03:00.0", "hpsa");
    for (number, pool) in [("8:1", "rpool"), ("8:17", "rpool"), ("8:33", "tank")] {
        machine.udev(number, &format!("S:disk/x\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL={pool}\n"));
    }
    machine.package("zfs", &["spl", "zfs"]).package("mpt3sas", &["mpt3sas"]).package("hpsa", &["hpsa"]);
    assert_eq!(
        machine.critical(),
        ["mpt3sas: drives sdb, which carries /", "zfs: / is a zfs file system (rpool/ROOT/debian)",]
    );
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[test]
fn a_pool_whose_members_nobody_knows_is_a_warning() {
    let machine = Machine::new();
    machine.mount("/", "0:25", "zfs", "rpool/ROOT/debian", "").package("zfs", &["zfs"]);
    assert_eq!(machine.critical(), ["zfs: / is a zfs file system (rpool/ROOT/debian)"]);
    assert_eq!(machine.ask().warnings, ["cannot tell which devices the pool rpool is on, which carries /"]);
}

/// ext4 on LUKS on LVM on a mirror.
#[rstest]
#[case::one_leg("sdb", "hpsa: drives sdb, which carries /")]
#[case::the_other_leg("sda", "hpsa: drives sda, which carries /")]
fn a_stack_of_volumes_is_followed_down_to_the_disks(#[case] disk: &str, #[case] want: &str) {
    let machine = Machine::new();
    machine.ordinary().mount("/", "253:1", "ext4", "/dev/mapper/root", "");
    for (name, address) in [("sda", "0000:00:17.0"), ("sdb", "0000:02:00.0")] {
        machine.scsi(name, address, if name == disk { "hpsa" } else { "ahci" });
    }
    machine.made("md0", "9:0", &["sda1", "sdb1"]).file("/sys/devices/virtual/block/md0/md/level", "raid1\n");
    machine.made("dm-0", "253:0", &["md0"]).file("/sys/devices/virtual/block/dm-0/dm/uuid", "LVM-x\n");
    machine
        .made("dm-1", "253:1", &["dm-0"])
        .file("/sys/devices/virtual/block/dm-1/dm/uuid", "CRYPT-LUKS2-x\n");
    machine.package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), [want]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[rstest]
#[case::level("raid1", "raid1")]
#[case::parity("raid6", "raid456")]
#[case::crypt("CRYPT-LUKS1-x", "dm-crypt")]
#[case::volume_manager("LVM-x", "md-mod")]
fn what_makes_a_volume_is_needed(#[case] level_or_uuid: &str, #[case] module: &str) {
    let machine = Machine::new();
    machine.mount("/", "253:0", "ext4", "/dev/dm-0", "").scsi("sda", "0000:00:17.0", "ahci");
    machine.made("md0", "9:0", &["sda1"]).file("/sys/devices/virtual/block/md0/md/level", level_or_uuid);
    machine.made("dm-0", "253:0", &["md0"]).file("/sys/devices/virtual/block/dm-0/dm/uuid", level_or_uuid);
    machine.package("volumes", &[module]);
    assert_eq!(machine.critical().len(), 1, "{:?}", machine.ask());
}

/// The head of a disk that several controllers may lead to is on none of them.
fn on_nvme(driver: &str) -> Machine {
    let machine = Machine::new();
    machine.ordinary().mount("/", "259:1", "ext4", "/dev/nvme0n1p1", "");
    machine.device("pci0000:00/0000:01:00.0", driver);
    machine.file("/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/transport", "pcie\n");
    let subsystem = "virtual/nvme-subsystem/nvme-subsys0";
    machine
        .link(&format!("/sys/devices/{subsystem}/nvme0"), "/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0");
    machine.disk(&format!("{subsystem}/nvme0n1"), "259:0");
    machine.partition(&format!("{subsystem}/nvme0n1/nvme0n1p1"), "259:1");
    machine
}

const NVME: &str = "fastnvme pci:v0000ABCDd00000001sv0000ABCDsd00000001bc01sc08i02";

#[test]
fn an_nvme_disk_with_a_driver_of_others_needs_it() {
    let machine = on_nvme(NVME);
    machine.package("fastnvme-dkms", &["fastnvme"]);
    assert_eq!(machine.critical(), ["fastnvme-dkms: drives nvme0n1, which carries /"]);
}

#[test]
fn an_nvme_disk_that_the_kernel_can_drive_does_not() {
    let machine = on_nvme(NVME);
    machine.package("fastnvme-dkms", &["fastnvme"]);
    machine.own(NEW, "kernel/drivers/nvme/host/nvme.ko", &["pci:v*d*sv*sd*bc01sc08i02*"]);
    assert_eq!(machine.critical(), NOTHING);
    assert_eq!(
        machine.spared(),
        ["fastnvme-dkms: drives nvme0n1, which carries /, but for nvme the kernel has its own \
             kernel/drivers/nvme/host/nvme.ko"]
    );
}

#[test]
fn one_without_a_head_is_on_its_controller() {
    let machine = Machine::new();
    machine
        .ordinary()
        .mount("/", "259:0", "ext4", "/dev/nvme0n1", "")
        .device("pci0000:00/0000:01:00.0", NVME);
    machine.disk("pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.package("fastnvme-dkms", &["fastnvme"]);
    assert_eq!(machine.critical(), ["fastnvme-dkms: drives nvme0n1, which carries /"]);
}

const NIC: &str = "r8168 pci:v000010ECd00008168sv000010ECsd00008168bc02sc00i00";

/// A root that comes through a VLAN on a bond of two cards; there is a third card.
fn on_nfs() -> Machine {
    let machine = Machine::new();
    machine.ordinary().mount("/", "0:30", "nfs4", "10.0.0.1:/srv/root", "vers=4.2,addr=10.0.0.1");
    machine.own(NEW, "kernel/fs/nfs/nfsv4.ko", &["fs-nfs4"]);
    machine.card("eth0", "0000:01:00.0", NIC).card("eth1", "0000:02:00.0", "e1000e").card(
        "eth2",
        "0000:03:00.0",
        "atlantic",
    );
    machine.interface("virtual/net/bond0", &["eth0", "eth1"]).interface("virtual/net/bond0.7", &["bond0"]);
    machine.routes("eth2", "bond0.7");
    machine.package("r8168", &["r8168"]).package("atlantic", &["atlantic"]);
    machine
}

#[test]
fn a_root_of_the_network_needs_the_cards_that_it_comes_through() {
    let machine = on_nfs();
    assert_eq!(machine.critical(), ["r8168: drives eth0, through which / comes"]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[rstest]
#[case::indexed(NEW)]
#[case::not_indexed_yet(RUNNING)]
fn a_card_that_the_kernel_can_drive_itself_needs_no_other_driver(#[case] index: &str) {
    let machine = on_nfs();
    machine.own(NEW, "kernel/drivers/net/r8169.ko", &[]);
    let alias = "alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\n";
    machine.file(&format!("/lib/modules/{NEW}/modules.alias"), "");
    machine.file(&format!("/lib/modules/{index}/modules.alias"), alias);
    assert_eq!(machine.critical(), NOTHING);
    assert_eq!(machine.spared().len(), 1);
}

#[rstest]
#[case::iscsi("iscsi")]
#[case::nvme_over_tcp("nvme")]
#[case::nbd("nbd")]
fn a_disk_of_the_network_needs_the_card(#[case] kind: &str) {
    let machine = Machine::new();
    machine.ordinary().mount("/", "99:0", "ext4", "/dev/x", "");
    match kind {
        "iscsi" => {
            machine.disk("platform/host3/session1/target3:0:0/3:0:0:0/block/sda", "99:0");
            machine.file("/sys/class/scsi_host/host3/proc_name", "iscsi_tcp\n");
            machine.file("/sys/class/iscsi_connection/connection1:0/address", "10.0.0.1\n");
            machine.routes("eth1", "eth0");
        }
        "nvme" => {
            let controller = "virtual/nvme-fabrics/ctl/nvme0";
            machine.file(&format!("/sys/devices/{controller}/transport"), "tcp\n");
            machine.file(&format!("/sys/devices/{controller}/address"), "traddr=10.0.0.1,trsvcid=4420\n");
            machine.link(
                "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0",
                &format!("/sys/devices/{controller}"),
            );
            machine.disk("virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "99:0");
            machine.routes("eth1", "eth0");
        }
        _ => {
            machine.made("nbd0", "99:0", &[]).file("/proc/devices", "Block devices:\n 99 nbd\n");
            machine.routes("eth0", "eth1");
        }
    }
    machine.card("eth0", "0000:01:00.0", NIC).card("eth1", "0000:02:00.0", "atlantic");
    machine.package("r8168", &["r8168"]).package("atlantic", &["atlantic"]);
    assert_eq!(machine.critical(), ["r8168: drives eth0, through which / comes"]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

/// Two file systems of two devices each; only one is the root.
#[rstest]
#[case::by_its_device("/dev/sda1")]
#[case::by_a_link("/dev/disk/by-path/pci-0000:00:17.0-ata-1")]
fn every_member_of_a_btrfs_is_needed(#[case] source: &str) {
    let machine = Machine::new();
    machine
        .ordinary()
        .mount("/", "0:22", "btrfs", source, "subvol=/@")
        .link("/dev/disk/by-path/pci-0000:00:17.0-ata-1", "/dev/sda1");
    for (at, name) in ["sda", "sdb", "sdc", "sdd"].into_iter().enumerate() {
        machine.scsi(name, &format!("0000:0{at}:00.0"), ["ahci", "hpsa", "aacraid", "ahci"][at]);
        machine.link(
            &format!("/sys/fs/btrfs/u{}/devices/{name}1", at / 2),
            &format!("/sys/class/block/{name}1"),
        );
    }
    machine.package("hpsa", &["hpsa"]).package("aacraid", &["aacraid"]);
    assert_eq!(machine.critical(), ["hpsa: drives sdb, which carries /"]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

/// Without udev the source of a root may be called so.
#[test]
fn the_only_btrfs_is_the_one_that_is_mounted() {
    let machine = Machine::new();
    machine.ordinary().mount("/", "0:22", "btrfs", "/dev/root", "").scsi("sda", "0000:00:17.0", "hpsa");
    machine
        .link("/sys/fs/btrfs/u/devices/sda1", "/sys/class/block/sda1")
        .file("/sys/fs/btrfs/features/raid1c34", "");
    machine.package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /"]);
}

#[test]
fn so_is_every_member_of_a_bcachefs() {
    let machine = Machine::new();
    machine.mount("/", "0:22", "bcachefs", "/dev/sda1:/dev/sdb1", "").own(
        NEW,
        "kernel/drivers/ata/ahci.ko",
        &[],
    );
    machine.scsi("sda", "0000:00:17.0", "ahci").scsi("sdb", "0000:02:00.0", "hpsa");
    machine.package("bcachefs", &["bcachefs"]).package("hpsa", &["hpsa"]);
    assert_eq!(
        machine.critical(),
        ["bcachefs: / is a bcachefs file system (/dev/sda1:/dev/sdb1)", "hpsa: drives sdb, which carries /"]
    );
}

#[test]
fn below_an_image_based_system_is_what_carries_it() {
    let machine = Machine::on_sda("hpsa");
    machine.package("hpsa", &["hpsa"]);
    machine.file("/proc/self/mountinfo", "").mount("/", "0:33", "overlay", "composefs", "lowerdir=/x");
    machine.mount("/sysroot", "8:1", "ext4", "/dev/sda1", "");
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /sysroot"]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[test]
fn an_overlay_that_cannot_be_seen_through_is_a_warning() {
    let machine = Machine::on_sda("hpsa");
    machine.package("hpsa", &["hpsa"]);
    machine.file("/proc/self/mountinfo", "").mount("/", "0:33", "overlay", "overlay", "lowerdir=/root/lower");
    let detected = machine.ask();
    assert_eq!(detected.critical.len(), 0);
    assert_eq!(detected.warnings, ["cannot tell what is below the overlay on /"]);
}

/// A disk with data beside a plain root: an encrypted volume on a controller of its own.
#[rstest]
#[case::required("defaults", "luks", &["hpsa: drives sdb, which carries /srv (later)"])]
#[case::nofail("defaults,nofail", "luks,nofail", &[])]
#[case::noauto("noauto", "luks", &[])]
#[case::only_the_volume_may_fail("defaults", "luks,nofail", &["hpsa: drives sdb, which carries /srv (later)"])]
#[case::early("defaults,x-initrd.mount", "luks", &["hpsa: drives sdb, which carries /srv"])]
fn a_data_disk_is_critical_unless_the_machine_may_come_up_without(
    #[case] options: &str,
    #[case] crypttab: &str,
    #[case] want: &[&str],
    #[values(true, false)] is_open: bool,
) {
    let machine = Machine::on_sda("ahci");
    machine.scsi("sdb", "0000:02:00.0", "hpsa").package("hpsa", &["hpsa"]);
    machine
        .fstab("/dev/sda1 / ext4 defaults 0 1")
        .fstab(&format!("/dev/mapper/data /srv ext4 {options} 0 2"));
    machine.fstab("UUID=gone none swap sw 0 0");
    machine
        .file("/etc/crypttab", format!("data UUID=2 none {crypttab}\n"))
        .link("/dev/disk/by-uuid/2", "/dev/sdb1");
    if is_open {
        machine.made("dm-0", "253:0", &["sdb1"]).link("/dev/mapper/data", "/dev/dm-0");
        machine.mount("/srv", "253:0", "ext4", "/dev/mapper/data", "");
    }
    assert_eq!(machine.critical(), want);
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[test]
fn what_is_mounted_is_followed_whatever_fstab_calls_it() {
    let machine = Machine::on_sda("ahci");
    machine.scsi("sdb", "0000:02:00.0", "hpsa").mount("/srv", "8:17", "ext4", "/dev/sdb1", "");
    machine.fstab("LABEL=srv /srv auto defaults 0 2").package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sdb, which carries /srv (later)"]);
    assert_eq!(machine.ask().warnings, NOTHING);
}

#[test]
fn a_disk_that_is_not_there_is_a_warning() {
    let machine = Machine::on_sda("ahci");
    machine.fstab("LABEL=away /srv ext4 defaults 0 2");
    machine
        .fstab("/dev/disk/by-path/pci-0000:02:00.0-part1 /var ext4 defaults 0 2")
        .link("/dev/disk/by-path/pci-0000:02:00.0-part1", "/dev/sda1");
    assert_eq!(machine.ask().warnings, ["cannot tell which device LABEL=away is, which carries /srv"]);
}

#[rstest]
#[case::listed("/dev/sdb1 /usr ext4 defaults 0 1")]
#[case::not_listed("")]
fn the_initramfs_mounts_usr(#[case] fstab: &str) {
    let machine = Machine::on_sda("ahci");
    machine.scsi("sdb", "0000:02:00.0", "hpsa").mount("/usr", "8:17", "ext4", "/dev/sdb1", "");
    machine.fstab(fstab).package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sdb, which carries /usr"]);
}

/// As zfs-mount-generator has it.
#[rstest]
#[case::required("requires", "", &["zfs: /home/u-1 is a zfs file system (tank/home) (later)"])]
#[case::wanted("wants", "", &[])]
#[case::let_go_by_fstab("requires", "tank/home /home/u-1 zfs nofail 0 0", &[])]
fn a_mount_unit_that_the_boot_requires_is_as_good_as_fstab(
    #[case] strength: &str,
    #[case] fstab: &str,
    #[case] want: &[&str],
) {
    let machine = Machine::on_sda("ahci");
    machine.mount("/home/u-1", "0:50", "zfs", "tank/home", "").fstab(fstab).package("zfs", &["zfs"]);
    machine.file(&format!("/run/systemd/generator/local-fs.target.{strength}/home-u\\x2d1.mount"), "");
    assert_eq!(machine.critical(), want);
}

#[test]
fn a_file_system_on_a_volume_of_zfs_needs_the_pool() {
    let machine = Machine::new();
    machine.ordinary().mount("/", "230:1", "ext4", "/dev/zd0p1", "").scsi("sda", "0000:02:00.0", "hpsa");
    machine.made("zd0", "230:0", &[]).partition("virtual/block/zd0/zd0p1", "230:1");
    machine.udev("230:0", "S:zvol/tank/root\n").udev("8:1", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n");
    machine.package("zfs", &["zfs"]).package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /", "zfs: makes zd0, which carries /"]);
}

#[test]
fn a_file_system_in_a_file_needs_the_one_around_it() {
    let machine = Machine::on_sda("hpsa");
    machine.file("/proc/self/mountinfo", "").mount("/", "7:0", "ext4", "/dev/loop0", "");
    machine.mount("/host", "8:1", "ext4", "/dev/sda1", "").made("loop0", "7:0", &[]);
    machine.file("/sys/devices/virtual/block/loop0/loop/backing_file", "/host/root.img\n");
    machine.package("hpsa", &["hpsa"]);
    assert_eq!(machine.critical(), ["hpsa: drives sda, which carries /"]);
}

#[test]
fn a_disk_that_is_on_nothing_known_is_a_warning() {
    let machine = Machine::new();
    machine.ordinary().mount("/", "252:0", "ext4", "/dev/bcache0", "").made("bcache0", "252:0", &[]);
    machine.fstab("/dev/emcpowera /srv ext4 defaults 0 2").disk("virtual/block/emcpowera", "120:0");
    assert_eq!(
        machine.ask().warnings,
        [
            "cannot tell what is below bcache0, which carries /",
            "cannot tell what is below emcpowera, which carries /srv"
        ]
    );
}
