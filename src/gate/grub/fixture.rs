// SPDX-License-Identifier: MIT OR Apache-2.0
//! Short texts of the shape that the real grub-mkconfig gives (2.06 and 2.12), for tests.

use crate::kernel::KernelRelease;

pub(super) const OLD: &str = "6.1.0-55-amd64";
pub(super) const NEW: &str = "6.1.0-56-amd64";

/// What is configured, as /etc/default/grub has it.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    pub default: &'a str,
    pub submenus: bool,
    pub recovery: bool,
    pub save_default: bool,
    /// Newest first.
    pub kernels: &'a [&'a str],
    /// What the scripts after 10_linux print.
    pub after: &'a str,
}

pub(super) const MACHINE: Machine = Machine {
    default: "0",
    submenus: true,
    recovery: true,
    save_default: false,
    kernels: &[NEW, OLD],
    after: "",
};

const HEADER: &str = r#"
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${initrdfail}" = 2 ]; then
   set initrdfail=
elif [ "${initrdfail}" = 1 ]; then
   set next_entry="${prev_entry}"
   set prev_entry=
   save_env prev_entry
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="@DEFAULT@"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
if [ "${prev_saved_entry}" ]; then
  set saved_entry="${prev_saved_entry}"
  save_env saved_entry
  set prev_saved_entry=
  save_env prev_saved_entry
  set boot_once=true
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function recordfail {
  set recordfail=1
  if [ -n "${have_grubenv}" ]; then if [ -z "${boot_once}" ]; then save_env recordfail; fi; fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
  fi
}
if loadfont unicode ; then
  set gfxmode=auto
  load_video
fi
terminal_output gfxterm
if [ "${recordfail}" = 1 ] ; then
  set timeout=30
else
  if [ x$feature_timeout_style = xy ] ; then
    set timeout_style=hidden
    set timeout=0
  else
    set timeout=0
  fi
fi
### END /etc/grub.d/00_header ###
"#;

const FOOTER: &str = r#"
### BEGIN /etc/grub.d/30_uefi-firmware ###
if [ "$grub_platform" = "efi" ]; then
	fwsetup --is-supported
	if [ "$?" = 0 ]; then
		menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
			fwsetup
		}
	fi
fi
### END /etc/grub.d/30_uefi-firmware ###
### BEGIN /etc/grub.d/41_custom ###
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
### END /etc/grub.d/41_custom ###
### BEGIN /etc/grub.d/zz_dkms ###
"#;

pub(super) const OTHER_SYSTEMS: &str = r#"
### BEGIN /etc/grub.d/30_os-prober ###
menuentry 'Windows Boot Manager (on /dev/sda1)' --class windows --class os $menuentry_id_option 'osprober-efi-A' {
	insmod part_gpt
	search --no-floppy --fs-uuid --set=root A
	chainloader /EFI/Microsoft/Boot/bootmgfw.efi
}
menuentry 'Debian GNU/Linux 12 (on /dev/sdb1)' --class debian $menuentry_id_option 'osprober-gnulinux-simple-B' {
	insmod ext2
	search --no-floppy --fs-uuid --set=root B
	linux /boot/vmlinuz-6.1.0-56-amd64 root=/dev/sdb1
	initrd /boot/initrd.img-6.1.0-56-amd64
}
### END /etc/grub.d/30_os-prober ###
"#;

impl Machine<'_> {
    /// The grub.cfg up to where our own script is asked.
    pub(super) fn cfg(&self) -> String {
        let mut cfg = HEADER.replace("@DEFAULT@", self.default);
        cfg.push_str("### BEGIN /etc/grub.d/10_linux ###\n");
        let mut first = true;
        for kernel in self.kernels {
            if first && self.submenus {
                cfg.push_str(&self.entry("Debian GNU/Linux", "gnulinux-simple-U", kernel, "quiet"));
                cfg.push_str(
                    "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-U' {\n",
                );
            }
            first = false;
            let title = format!("Debian GNU/Linux, with Linux {kernel}");
            cfg.push_str(&self.entry(&title, &format!("gnulinux-{kernel}-advanced-U"), kernel, "quiet"));
            if self.recovery {
                let title = format!("{title} (recovery mode)");
                cfg.push_str(&self.entry(&title, &format!("gnulinux-{kernel}-recovery-U"), kernel, "single"));
            }
        }
        if self.submenus {
            cfg.push_str("}\n");
        }
        cfg.push_str("### END /etc/grub.d/10_linux ###\n");
        cfg + self.after + FOOTER
    }

    fn entry(&self, title: &str, id: &str, kernel: &str, argument: &str) -> String {
        let save = if self.save_default { "savedefault" } else { "recordfail" };
        format!(
            "menuentry '{title}' --class debian --class os $menuentry_id_option '{id}' {{
	{save}
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	set root='hd0,gpt2'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 --hint='hd0,gpt2'  U
	else
	  search --no-floppy --fs-uuid --set=root U
	fi
	linux	/boot/vmlinuz-{kernel} root=UUID=U ro {argument} $vt_handoff
	initrd	/boot/initrd.img-{kernel}
}}
"
        )
    }
}

pub(super) fn release(text: &str) -> KernelRelease {
    text.parse().unwrap()
}
