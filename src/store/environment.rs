// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which environment variables may have a part in a build: all but those that tell who calls, from
//! where and what for. Pure.

/// What the rest of the name does not matter of.
const AMBIENT_BEGINNINGS: &[&str] = &[
    "APT_",
    "AWS_",
    "DBUS_",
    "DEBCONF_",
    "DEBIAN_",
    "DKMS_STORE_",
    "DPKG_",
    "GPG_",
    "INSTALLKERNEL_",
    "KERNEL_INSTALL_",
    "LC_",
    "LESS",
    "LS_",
    "MANAGER",
    "PACKAGEKIT_",
    "PERL_",
    "RPM_",
    "SSH_",
    "SUDO_",
    "SYSTEMD_",
    "UNATTENDED_",
    "XDG_",
];

const AMBIENT: &[&str] = &[
    "COLORTERM",
    "COLUMNS",
    "CREDENTIALS_DIRECTORY",
    "DEB_MAINT_PARAMS",
    "DISPLAY",
    "EDITOR",
    "HISTCONTROL",
    "HISTFILE",
    "HISTSIZE",
    "HOME",
    "HOSTNAME",
    "INITRD",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "KBUILD_SIGN_PIN",
    "LANG",
    "LANGUAGE",
    "LINES",
    "LISTEN_FDS",
    "LOGNAME",
    "MAIL",
    "NEEDRESTART_MODE",
    "NEEDRESTART_SUSPEND",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "PAGER",
    "PWD",
    "SHELL",
    "SHLVL",
    "STATE_DIRECTORY",
    "TERM",
    "TMPDIR",
    "TMUX",
    "TZ",
    "USER",
    "USERNAME",
    "VISUAL",
    "_",
    "WATCHDOG_PID",
];

/// The variables that may: an unknown one costs at most a compile.
pub fn relevant(variables: &[(String, String)]) -> Vec<(String, String)> {
    let is_ambient = |name: &str| {
        AMBIENT.contains(&name)
            || AMBIENT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    variables.iter().filter(|(name, _)| !is_ambient(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::compiler("CC", true)]
    #[case::llvm("LLVM", true)]
    #[case::flags("KCFLAGS", true)]
    #[case::kbuild("KBUILD_MODPOST_WARN", true)]
    #[case::cross("CROSS_COMPILE", true)]
    #[case::unheard_of("MYDRIVER_DEBUG", true)]
    #[case::date("SOURCE_DATE_EPOCH", true)]
    #[case::secret_of_the_signing_key("KBUILD_SIGN_PIN", false)]
    #[case::secret_of_a_shared_store("DKMS_STORE_TOKEN", false)]
    #[case::terminal("TERM", false)]
    #[case::package_manager("DPKG_MAINTSCRIPT_NAME", false)]
    #[case::service("INVOCATION_ID", false)]
    #[case::proxy("https_proxy", false)]
    fn who_calls_does_not_matter(#[case] name: &str, #[case] matters: bool) {
        let variables = [(name.to_owned(), "x".to_owned())];
        assert_eq!(relevant(&variables).len(), usize::from(matters));
    }
}
