// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may say what is installed: artefacts of shared stores carry a detached signature in the format
//! of minisign(1), by a key that this machine has been told to trust.

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use fs_err as fs;
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::root::Root;

/// The key that this machine signs with, and what others need to check that.
pub const KEY: &str = "/etc/dkms/store.key";
pub const PUBLIC_KEY: &str = "/etc/dkms/store.pub";

/// Where the keys are that this machine trusts, `*.pub`.
pub const TRUSTED: &str = "/etc/dkms/store-keys.d";

/// A signature is four lines: nothing that is longer is one.
pub const LONGEST: u64 = 4096;

/// The keys that are trusted.
#[derive(Debug, Default)]
pub struct Trusted(Vec<PublicKey>);

impl Trusted {
    /// Reads them; what is no key is passed over, with a warning.
    pub fn read(root: &Root, report: &Report) -> Result<Self> {
        let directory = root.path(TRUSTED);
        let mut keys = Vec::new();
        for name in files::names(&directory)?.iter().filter(|name| name.ends_with(".pub")) {
            let path = directory.join(name);
            let text = files::read_regular_if_there(&path);
            match text.and_then(|text| public_key(&text.unwrap_or_default())) {
                Ok(key) => keys.push(key),
                Err(error) => report.warning(format_args!(
                    "{} is no public key of minisign's ({error:#}); it is passed over",
                    path.display()
                )),
            }
        }
        Ok(Self(keys))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that a trusted key has signed exactly this. The error says what is wrong; the result is
    /// the key's number, as minisign shows it.
    pub fn verify(&self, content: &[u8], signature: &[u8]) -> Result<String> {
        let signature = std::str::from_utf8(signature).ok().and_then(parse);
        let signature = signature.context("its signature is none of minisign's")?;
        let id = number(signature.keynum());
        let key = self.0.iter().find(|key| key.keynum() == signature.keynum());
        let key = key.with_context(|| {
            format!("it is signed with the key {id}, which is not among those that {TRUSTED} trusts")
        })?;
        let signed = minisign::verify(key, &signature, Cursor::new(content), true, false, false);
        signed.map_err(|_| anyhow!("it is not what was signed with the key {id}: it was changed since"))?;
        Ok(id)
    }
}

/// A number as minisign(1) shows it: the bytes as one in little endian.
fn number(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

/// Reads a signature that has all of its parts.
fn parse(text: &str) -> Option<SignatureBox> {
    // The crate takes for granted that a signature has its length, which base64 makes 100 and 88.
    let lines: Vec<usize> = text.lines().map(|line| line.trim().len()).collect();
    if !matches!(lines.as_slice(), [_, 100, _, 88, ..]) {
        return None;
    }
    SignatureBox::from_string(text).ok()
}

fn public_key(text: &str) -> Result<PublicKey> {
    Ok(PublicKeyBox::from_string(text)?.into_public_key()?)
}

/// The key that artefacts are signed with.
#[derive(Debug)]
pub struct SigningKey(SecretKey);

impl SigningKey {
    /// Reads this machine's key; nobody else may be able to.
    pub fn read(root: &Root) -> Result<Self> {
        let path = root.path(KEY);
        let Some(text) = files::read_regular_if_there(&path)? else {
            bail!(
                "there is no key to sign with at {}; make one: dkms push --generate-key (or minisign -G -W)",
                path.display()
            );
        };
        ensure_private(&path)?;
        let reading = || format!("reading {}", path.display());
        let key = SecretKeyBox::from_string(&text).and_then(SecretKeyBox::into_unencrypted_secret_key);
        let key = key.with_context(reading)?;
        ensure!(
            !key.is_encrypted(),
            "{} has a password, which nobody is there to type; make a key without: minisign -G -W",
            path.display()
        );
        Ok(Self(key))
    }

    /// A signature; `about` is what minisign shows of it once it has been verified.
    pub fn sign(&self, content: &[u8], about: &str) -> Result<Vec<u8>> {
        let untrusted = Some("signature of dkms's store");
        let signature = minisign::sign(None, &self.0, Cursor::new(content), Some(about), untrusted);
        Ok(signature.context("signing")?.into_string().into_bytes())
    }
}

/// Fails if others than its owner can read a file.
pub(super) fn ensure_private(path: &std::path::Path) -> Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    let shown = path.display();
    ensure!(
        mode & 0o077 == 0,
        "others can read {shown}, so it is not used; keep it private: chmod 600 {shown}"
    );
    Ok(())
}

/// Makes a pair of keys, unless there is one; the result are their places.
pub fn generate(root: &Root) -> Result<(PathBuf, PathBuf)> {
    let (secret, public) = (root.path(KEY), root.path(PUBLIC_KEY));
    for path in [&secret, &public] {
        ensure!(!files::exists(path), "{} is there already, and no key is ever overwritten", path.display());
    }
    let making = "making a pair of keys";
    let pair = KeyPair::generate_unencrypted_keypair().context(making)?;
    let key =
        pair.sk.to_box(Some("dkms's store of built modules: secret key")).context(making)?.into_string();
    let shared = pair.pk.to_box().context(making)?.into_string();
    // The secret one first: without it the other is of no use to anybody.
    for (path, text, mode) in [(&secret, key, 0o600), (&public, shared, 0o644)] {
        ensure!(files::write_new(path, text.as_bytes(), mode)?, "{} has just come", path.display());
    }
    Ok((secret, public))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::Root;

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn trusting(root: &Root) -> Trusted {
        Trusted::read(root, &Report::new(true, false)).unwrap()
    }

    #[test]
    fn what_a_trusted_key_has_signed_is_known_and_nothing_else() {
        let (_dir, root) = machine();
        generate(&root).unwrap();
        let signature = SigningKey::read(&root).unwrap().sign(b"content", "foo/1.0").unwrap();
        let why = |trusted: &Trusted, content: &[u8], signature: &[u8]| {
            trusted.verify(content, signature).unwrap_err().to_string()
        };
        assert!(why(&trusting(&root), b"content", &signature).contains("not among those"));

        let trusted = root.path(TRUSTED).join("us.pub");
        files::write_atomically(&trusted, &fs::read(root.path(PUBLIC_KEY)).unwrap(), 0o644).unwrap();
        let trusted = trusting(&root);
        let id = trusted.verify(b"content", &signature).unwrap();
        assert!(fs::read_to_string(root.path(PUBLIC_KEY)).unwrap().contains(&id), "{id}");
        assert!(why(&trusted, b"contents", &signature).contains("changed since"));
        for at in 0..signature.len() {
            let mut damaged = signature.clone();
            damaged[at] ^= 1;
            // The first line's words are nobody's promise, and white space is none of base64's.
            let line = signature[..at].iter().filter(|byte| **byte == b'\n').count();
            let counts = line > 0 && signature[at] != b'\n';
            assert!(trusted.verify(b"content", &damaged).is_err() || !counts, "{at}");
            assert!(
                trusted.verify(b"content", &signature[..at]).is_err() || at + 1 == signature.len(),
                "{at}"
            );
        }
    }

    #[test]
    fn a_key_is_nobody_elses_to_read_and_never_overwritten() {
        let (_dir, root) = machine();
        let (secret, public) = generate(&root).unwrap();
        assert!(generate(&root).unwrap_err().to_string().contains("never overwritten") || secret.exists());
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&secret).unwrap();
        assert!(generate(&root).unwrap_err().to_string().contains(&public.display().to_string()));
        fs::write(&secret, "rubbish").unwrap();
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(SigningKey::read(&root).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(SigningKey::read(&root).is_err());
    }

    #[test]
    fn rubbish_is_no_trusted_key() {
        let (_dir, root) = machine();
        files::write_atomically(&root.path(TRUSTED).join("x.pub"), b"rubbish", 0o644).unwrap();
        files::write_atomically(&root.path(TRUSTED).join("readme"), b"rubbish", 0o644).unwrap();
        assert!(trusting(&root).is_empty());
    }
}
