// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signature at the end of a module file.

use anyhow::{Context, Result, bail};

/// What a signed module ends with (Documentation/admin-guide/module-signing.rst).
const SIGNATURE_MARKER: &[u8] = b"~Module signature appended~\n";

/// A module's image without the signature, and the signature, a PKCS#7 message in DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    pub content: &'a [u8],
    pub signature: &'a [u8],
}

/// Takes a signed module apart: behind the image come the signature, `struct module_signature`
/// (include/linux/module_signature.h: eight bytes and the signature's length, big-endian) and a
/// marker. Nothing if there is no marker; fails where the kernel would call that a bad message.
pub fn signed(image: &[u8]) -> Result<Option<Signed<'_>>> {
    /// The only `id_type` that kernels take since 4.4.
    const PKCS7: u8 = 2;
    let Some(rest) = image.strip_suffix(SIGNATURE_MARKER) else { return Ok(None) };
    let (rest, [algo, hash, kind, signer, key, _, _, _, length @ ..]) =
        rest.split_last_chunk::<12>().context("its signature is cut short")?;
    if *kind != PKCS7 || [algo, hash, signer, key].iter().any(|byte| **byte != 0) {
        bail!("its signature is of a kind that the kernel does not know");
    }
    let length = u32::from_be_bytes(*length) as usize;
    let at = rest.len().checked_sub(length).context("its signature is longer than the file")?;
    let (content, signature) = rest.split_at(at);
    Ok(Some(Signed { content, signature }))
}

#[cfg(test)]
mod tests {
    use super::super::ModInfo;
    use super::super::tests::module;
    use super::*;
    use rstest::rstest;

    /// What sign-file appends to a module.
    fn signature(kind: u8, length: u32, signature: &[u8]) -> Vec<u8> {
        let head = [0, 0, kind, 0, 0, 0, 0, 0];
        [signature, &head, &length.to_be_bytes(), b"~Module signature appended~\n"].concat()
    }

    #[test]
    fn a_signed_module_is_still_one_and_comes_apart() {
        let image = module(b"name=foo\0vermagic=6.1 SMP \0");
        let whole = [image.as_slice(), &signature(2, 3, b"abc")].concat();
        assert!(ModInfo::read(&whole).is_ok());
        assert_eq!(signed(&whole).unwrap(), Some(Signed { content: &image, signature: b"abc" }));
        assert_eq!(signed(&image).unwrap(), None);
    }

    #[rstest]
    #[case::too_long(signature(2, 4, b"abc"), "longer than")]
    #[case::no_room(b"short~Module signature appended~\n".to_vec(), "cut short")]
    #[case::pgp(signature(0, 3, b"abc"), "of a kind")]
    fn a_bad_signature_is_told(#[case] image: Vec<u8>, #[case] words: &str) {
        assert!(signed(&image).unwrap_err().to_string().contains(words));
    }
}
