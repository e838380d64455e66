// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who made a module's signature, and whether a certificate is theirs. Checks no signature: that
//! takes the key, and the kernel has it.

use std::fmt;

use anyhow::{Context, Result};
use cms::cert::x509;
use cms::cert::x509::der::{Decode, Encode};
use cms::cert::x509::ext::pkix::SubjectKeyIdentifier;
use cms::cert::x509::name::Name;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier};

/// How a signature names the certificate of its maker (RFC 5652, 5.3): sign-file gives the issuer
/// and the serial number, or the key's own number where it is told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The issuer in DER, as text, and the certificate's number with that issuer.
    Certificate { issuer: Vec<u8>, issuer_name: String, serial: Vec<u8> },
    /// The subject key identifier.
    Key(Vec<u8>),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { issuer_name, .. } => f.write_str(issuer_name),
            Self::Key(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// The makers of a module's signature, a PKCS#7 message in DER.
pub fn signers(signature: &[u8]) -> Result<Vec<Signer>> {
    let message = ContentInfo::from_der(signature)
        .and_then(|message| message.content.decode_as::<SignedData>())
        .context("its signature cannot be read")?;
    let signer = |signer: &SignerIdentifier| match signer {
        SignerIdentifier::IssuerAndSerialNumber(id) => Ok(Signer::Certificate {
            issuer: id.issuer.to_der().context("its signature cannot be read")?,
            issuer_name: readable(&id.issuer),
            serial: id.serial_number.as_bytes().to_vec(),
        }),
        SignerIdentifier::SubjectKeyIdentifier(id) => Ok(Signer::Key(id.0.as_bytes().to_vec())),
    };
    message.signer_infos.0.iter().map(|info| signer(&info.sid)).collect()
}

/// A name's common name, else all of it.
fn readable(name: &Name) -> String {
    let whole = name.to_string();
    let common = whole.split(',').find_map(|part| part.trim().strip_prefix("CN="));
    common.unwrap_or(&whole).to_owned()
}

/// As much of an X.509 certificate as finding a signature's maker takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    issuer: Vec<u8>,
    serial: Vec<u8>,
    key: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads one in DER.
    pub fn read(der: &[u8]) -> Result<Self> {
        let body = x509::Certificate::from_der(der).context("reading a certificate")?.tbs_certificate;
        let is_key_id = |oid: &str| oid == "2.5.29.14";
        let key = body.extensions.iter().flatten().find(|found| is_key_id(&found.extn_id.to_string()));
        let key = key.and_then(|found| SubjectKeyIdentifier::from_der(found.extn_value.as_bytes()).ok());
        Ok(Self {
            issuer: body.issuer.to_der().context("reading a certificate")?,
            serial: body.serial_number.as_bytes().to_vec(),
            key: key.map(|id| id.0.as_bytes().to_vec()),
        })
    }

    /// Whether a signature names this one.
    pub fn is_of(&self, signer: &Signer) -> bool {
        match signer {
            Signer::Certificate { issuer, serial, .. } => *issuer == self.issuer && *serial == self.serial,
            Signer::Key(id) => self.key.as_ref() == Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MOK: &[u8] = include_bytes!("../../tests/fixtures/signing/mok.der");
    const OTHER: &[u8] = include_bytes!("../../tests/fixtures/signing/other.der");
    const BY_CERTIFICATE: &[u8] = include_bytes!("../../tests/fixtures/signing/by-certificate.p7s");
    const BY_KEY: &[u8] = include_bytes!("../../tests/fixtures/signing/by-key.p7s");

    #[rstest]
    #[case::by_certificate(BY_CERTIFICATE, "DKMS module signing key")]
    #[case::by_key(BY_KEY, "407d17c4654114")]
    fn a_signature_names_its_makers_certificate(#[case] signature: &[u8], #[case] shown: &str) {
        let signers = signers(signature).unwrap();
        let [signer] = signers.as_slice() else { panic!("{signers:?}") };
        assert!(Certificate::read(MOK).unwrap().is_of(signer));
        assert!(!Certificate::read(OTHER).unwrap().is_of(signer));
        assert!(signer.to_string().starts_with(shown), "{signer}");
    }

    #[test]
    fn rubbish_has_no_maker() {
        assert!(signers(b"signature").is_err());
        assert!(Certificate::read(b"certificate").is_err());
    }
}
