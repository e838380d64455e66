// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's kernel hooks: `/etc/kernel/{preinst,postinst,prerm,header_postinst}.d`, run by
//! run-parts with the kernel release and, but for headers, the image's path. A failing postinst.d
//! hook keeps the initramfs and the boot loader's hooks from being run, and, where one of Debian's
//! hooks puts the image into /boot, that one as well.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::replay::afterwards;
use super::{go_on, installed, target};
use crate::commands::after::{After, is_done_already};
use crate::commands::foretell::{self, Afterwards, Kernel};
use crate::commands::session::Session;
use crate::commands::{Caller, kernel_gone, look_again, mark_pending};
use crate::kernel::KernelRelease;
use crate::sys::ancestors::{Process, ancestors};
use crate::sys::files;
use crate::sys::tools::{Output, Run, Tool};

/// Puts the image into /boot on systems whose packages no longer do that. In either directory that
/// linux-run-hooks knows.
const LEGACY_BOOT: [&str; 2] =
    ["/etc/kernel/postinst.d/00-legacy-boot", "/usr/share/kernel/postinst.d/00-legacy-boot"];

/// Our own that sorts before it, and calls us with `early-postinst`.
const EARLY: &str = "/etc/kernel/postinst.d/00-dkms";

/// The stage and the kernel.
fn parse(args: &[String]) -> Result<(&str, KernelRelease)> {
    let [stage, kernel, ..] = args else {
        bail!(
            "expected: hook debian preinst|early-postinst|postinst|prerm|header-postinst KERNEL-VERSION [IMAGE]"
        );
    };
    Ok((stage, kernel.parse().context("reading the kernel hook's arguments")?))
}

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    let (stage, kernel) = parse(args)?;
    match stage {
        "preinst" => {
            // The kernel's own files are about to be replaced; what worked stays until its
            // replacement is there, so nothing is removed here.
            let marked = session
                .begin_changes()
                .and_then(|()| mark_pending(session, &target(session, kernel.clone())))
                // Called by hand nobody replaces them, and nobody would look at it afterwards.
                .and_then(
                    |()| if session.is_by_hand() { look_again(session, &kernel, false) } else { Ok(()) },
                );
            if let Err(error) = marked {
                session.report.warning(format_args!("marking the kernel as pending, ignoring: {error:#}"));
            }
            Ok(0)
        }
        "early-postinst" | "postinst" if is_done_already() => Ok(0),
        "early-postinst" if !has_legacy_boot(session) => Ok(0),
        "early-postinst" | "postinst" if session.is_by_hand() => {
            by_hand(session, kernel, args.get(2).map(String::as_str))
        }
        "postinst" if was_early(session) => Ok(0),
        "early-postinst" | "postinst" => installed(session, kernel, Caller::KernelInstallation),
        "header-postinst" => {
            let caller = match makes_its_image_later(session, &kernel) {
                true => Caller::KernelInstallation,
                false => Caller::CommandLine,
            };
            installed(session, kernel, caller)
        }
        "prerm" => {
            kernel_gone(session, &kernel);
            Ok(0)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

/// What a hook would do.
pub(super) fn foretell(session: &Session, args: &[String]) -> Result<Kernel> {
    let (stage, kernel) = parse(args)?;
    let whose = target(session, kernel.clone());
    match stage {
        "preinst" => Ok(foretell::look(whose)),
        "prerm" => foretell::removal(session, &whose, None),
        "early-postinst" | "postinst" => {
            let after = After::kernel_hooks(session, &kernel, args.get(2).map(String::as_str));
            foretell::autoinstall(session, &whose, &afterwards(after.as_ref()))
        }
        "header-postinst" => {
            let later = makes_its_image_later(session, &kernel);
            let afterwards = if later { Afterwards::Later } else { Afterwards::Ours };
            foretell::autoinstall(session, &whose, &afterwards)
        }
        other => bail!("unknown kernel hook '{other}'"),
    }
}

fn has_legacy_boot(session: &Session) -> bool {
    LEGACY_BOOT.iter().any(|hook| files::is_executable(&session.tree.path(hook)))
}

/// Whether the same run-parts has called us before it put the image into /boot.
fn was_early(session: &Session) -> bool {
    has_legacy_boot(session)
        && files::is_executable(&session.tree.path(EARLY))
        && ancestors(&session.tree.path("/proc")).first().is_some_and(runs_parts)
}

fn runs_parts(parent: &Process) -> bool {
    let program = parent.words.first().and_then(|word| Path::new(word).file_name());
    program.is_some_and(|name| name == Tool::RunParts.name())
}

/// Whether a kernel's own hooks make its initramfs later: headers may come before their kernel, and
/// of packages that come together either may be configured first.
fn makes_its_image_later(session: &Session, kernel: &KernelRelease) -> bool {
    let image = session.tree.path(format!("/boot/vmlinuz-{kernel}"));
    let has_files = image.exists() || session.tree.kernel_dir(kernel).join("kernel").is_dir();
    !has_files || is_unconfigured(kernel)
}

/// Whether a kernel's package has yet to be configured, when it runs its hooks. Where dpkg cannot be
/// asked nobody is expected.
fn is_unconfigured(kernel: &KernelRelease) -> bool {
    let packages = [format!("linux-image-{kernel}"), format!("linux-image-unsigned-{kernel}")];
    let Ok(query) = Run::new(Tool::DpkgQuery) else { return false };
    // It fails if it knows only one of them.
    let ended = query.args(["-W", "-f", "${db:Status-Status}\n"]).args(&packages).end(Output::Apart);
    ended.is_ok_and(|ended| waits(&String::from_utf8_lossy(&ended.output)))
}

/// Of what dpkg-query says a package's state is, one a line. One whose configuration has failed is
/// not waited for.
fn waits(states: &str) -> bool {
    states.lines().any(|state| matches!(state, "unpacked" | "triggers-awaited" | "triggers-pending"))
}

/// As when the kernel was installed, with the hooks that run-parts would go on to: they make the
/// initramfs and tell the boot loader. Where there are none that is ours to do.
fn by_hand(session: &Session, kernel: KernelRelease, image: Option<&str>) -> Result<u8> {
    let Some(after) = After::kernel_hooks(session, &kernel, image) else {
        return installed(session, kernel, Caller::CommandLine);
    };
    match installed(session, kernel, Caller::KernelInstallation)? {
        0 => go_on(session, after),
        code => Ok(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::unknown("", false)]
    #[case::installed("installed\n", false)]
    #[case::to_be_configured("unpacked\n", true)]
    #[case::of_two("not-installed\nunpacked\n", true)]
    #[case::ubuntus_trigger("triggers-pending\n", true)]
    #[case::has_failed("half-configured\n", false)]
    fn a_package_that_is_not_configured_is_waited_for(#[case] states: &str, #[case] want: bool) {
        assert_eq!(waits(states), want);
    }

    #[rstest]
    #[case::run_parts("run-parts --report /etc/kernel/postinst.d", true)]
    #[case::with_a_path("/usr/bin/run-parts --report /etc/kernel/postinst.d", true)]
    #[case::a_shell("bash /etc/kernel/postinst.d/dkms", false)]
    #[case::nothing("", false)]
    fn run_parts_is_known_by_its_name(#[case] line: &str, #[case] want: bool) {
        let words = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(runs_parts(&Process { pid: 2, started: 1, words }), want);
    }
}
