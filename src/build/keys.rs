// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's signing key and its certificate (the MOK that firmware is asked to trust): where
//! they are, and how they are made when there are none. What is there is never written over.
//!
//! They are made by the openssl program, as dkms does: no cryptography of ours, what policy the
//! system has for its own (FIPS, say) holds, and sign-file needs that library anyhow.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::sign::{Custom, Setting, unsigned};
use crate::conf::framework::{Framework, late};
use crate::kernel::KernelRelease;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Output, Run, Tool};
use crate::tree::Tree;

/// What the certificate says of itself; `kmod` shows the name as the signer of a module. The
/// extensions let firmware and kernels take it for code.
const REQUEST: &str = "\
[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
[subject]
CN = DKMS module signing key
[extensions]
extendedKeyUsage = codeSigning
subjectKeyIdentifier = hash
";

/// For how long it is good, in days; kernels do not look at the date, firmware may.
const DAYS: &str = "36500";

/// Where Ubuntu's shim-signed keeps its pair.
const SHIM: [&str; 2] = ["/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"];

/// A key and the certificate that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// A file, or a `pkcs11:` URI that the signing program knows what to do with.
    pub key: String,
    pub certificate: PathBuf,
}

/// Every file that this machine may sign with, for whoever must not give one away: dkms's own,
/// shim's, and the configured one (for these kernels, if its path names the kernel).
pub fn private_keys(tree: &Tree, framework: &Framework, kernels: &[&KernelRelease]) -> Vec<PathBuf> {
    let setting = framework.mok_signing_key.iter().filter(|key| !key.starts_with("pkcs11:"));
    let configured = setting.flat_map(|key| {
        let of_kernels = kernels.iter().map(|kernel| late(key, kernel.as_str()));
        of_kernels.chain([key.clone()]).map(|key| tree.path(key)).collect::<Vec<_>>()
    });
    configured.chain([tree.dkms.join("mok.key"), tree.path(SHIM[0])]).collect()
}

impl Keys {
    /// The keys that are configured, after having made them if need be; prints dkms's lines about
    /// them. The error is the line that says why there are none.
    pub fn ready(setting: Setting<'_>, report: &Report) -> Result<Self, String> {
        let keys = Self::configured(setting);
        if keys.are_shims(setting) && !keys.are_there() {
            ask_shim(report)?;
        }
        report.line(format_args!("Signing key: {}", keys.key));
        report.line(format_args!("Public certificate (MOK): {}", keys.certificate.display()));
        if !keys.is_token() && !keys.are_there() {
            report.line("Certificate or key are missing, generating self signed certificate for MOK...");
            if Tool::Openssl.find().is_none() {
                return Err("openssl not found, can't generate key and certificate.".to_owned());
            }
            let made = keys.make(setting, report);
            if let Err(error) = made {
                report.warning(format_args!("{error:#}"));
            }
        }
        if !keys.has_key() {
            return Err(unsigned(&format!("Key file {} not found and can't be generated", keys.key)));
        }
        if !keys.has_certificate() {
            let certificate = keys.certificate.display();
            return Err(unsigned(&format!(
                "Certificate file {certificate} not found and can't be generated"
            )));
        }
        Ok(keys)
    }

    fn configured(setting: Setting<'_>) -> Self {
        let Setting { tree, framework, custom, kernel } = setting;
        let place = |setting: &Option<String>, number: usize, own: &str| match (setting, custom) {
            (Some(path), _) => tree.path(late(path, kernel.as_str())),
            (None, Custom::Ubuntu) => tree.path(SHIM[number]),
            (None, _) => tree.dkms.join(own),
        };
        let token = framework.mok_signing_key.as_ref().filter(|key| key.starts_with("pkcs11:"));
        let key = match token {
            Some(uri) => late(uri, kernel.as_str()),
            None => place(&framework.mok_signing_key, 0, "mok.key").display().to_string(),
        };
        Self { key, certificate: place(&framework.mok_certificate, 1, "mok.pub") }
    }

    /// Whether the key is in a token, where nobody but the signing program can look.
    fn is_token(&self) -> bool {
        self.key.starts_with("pkcs11:")
    }

    fn has_key(&self) -> bool {
        self.is_token() || Path::new(&self.key).is_file()
    }

    fn has_certificate(&self) -> bool {
        self.certificate.is_file()
    }

    fn are_there(&self) -> bool {
        self.has_key() && self.has_certificate()
    }

    fn are_shims(&self, setting: Setting<'_>) -> bool {
        setting.custom == Custom::Ubuntu
            && Path::new(&self.key) == setting.tree.path(SHIM[0])
            && self.certificate == setting.tree.path(SHIM[1])
    }

    /// Makes the certificate, and the key as well if that is missing. A certificate whose key is
    /// gone may be enrolled, and its key be somewhere else: it stays, and nothing is made.
    fn make(&self, setting: Setting<'_>, report: &Report) -> Result<()> {
        let _lock = setting.tree.lock_signing_key(report)?;
        // Whoever held the lock may have made them.
        if self.are_there() {
            return Ok(());
        }
        let (key, has_key) = (Path::new(&self.key), self.has_key());
        if self.has_certificate() {
            bail!(
                "the certificate {} is there without its key; bring that back to {}, or move the certificate \
                 away for a new pair to be made",
                self.certificate.display(),
                key.display()
            );
        }
        // Beside what is made first: a private key is never on another file system.
        let beside = files::parent(if has_key { &self.certificate } else { key })?;
        let staged = tempfile::Builder::new()
            .prefix(".dkms-key-")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir_in(beside)
            .with_context(|| format!("making a key in {}", beside.display()))?;
        let at = |name: &str| staged.path().join(name);
        fs::write(at("request"), REQUEST)?;
        let mut run = Run::new(Tool::Openssl)?
            .args(["req", "-new", "-x509", "-sha256", "-days", DAYS, "-batch", "-outform", "DER"])
            .arg("-config")
            .arg(at("request"))
            .arg("-out")
            .arg(at("certificate"))
            // An existing key may have a passphrase.
            .foreground();
        run = if has_key {
            run.arg("-key").arg(key)
        } else {
            run.args(["-newkey", "rsa:2048", "-nodes", "-keyout"]).arg(at("key"))
        };
        run.succeed().with_context(|| format!("making the certificate {}", self.certificate.display()))?;
        if !has_key {
            place_new(&at("key"), key, 0o600)?;
        }
        // The key first: a certificate can be made for it at any time.
        let directory = files::parent(&self.certificate)?;
        if !directory.is_dir() {
            bail!("there is no directory {} for the certificate", directory.display());
        }
        let certificate = fs::read(at("certificate"))?;
        files::write_atomically(&self.certificate, &certificate, 0o644)
    }
}

/// Gives a file its name, unless something has that name by now.
fn place_new(staged: &Path, path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(staged, PermissionsExt::from_mode(mode))?;
    fs::File::open(staged)?.sync_all()?;
    fs::hard_link(staged, path)?;
    files::sync_directory(files::parent(path)?)
}

/// Lets Ubuntu's program make shim's pair and ask for its enrolment at the next boot.
fn ask_shim(report: &Report) -> Result<(), String> {
    if Tool::UpdateSecurebootPolicy.find().is_none() {
        let name = Tool::UpdateSecurebootPolicy.name();
        return Err(unsigned(&format!("Binary {name} not found")));
    }
    report.line("Certificate or key are missing, generating them using update-secureboot-policy...");
    for action in ["--new-key", "--enroll-key"] {
        let output = if report.is_direct() { Output::Shown } else { Output::Merged };
        let asked =
            Run::new(Tool::UpdateSecurebootPolicy).and_then(|run| run.arg(action).foreground().end(output));
        if let Err(error) = asked {
            report.warning(format_args!("{error:#}"));
        }
    }
    Ok(())
}
