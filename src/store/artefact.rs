// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shared stores hold: one archive for a module and a kernel, with a manifest that says what it
//! is, an SBOM, the log of the build and the modules as the build left them. Who has signed it is
//! looked at before it comes here ([`super::signature`]). Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::{self, Entry};
use super::sbom;
use crate::module::{ModuleId, Target};
use crate::module_file::ModInfo;
use crate::tree::made::MadeOf;

/// Counts up whenever an older dkms would misread an artefact.
const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";
const SBOM: &str = "sbom.cdx.json";

/// No module is a tenth of this, packed or unpacked, in bytes.
pub const MOST_PACKED: u64 = 256 << 20;
const MOST_UNPACKED: u64 = 1 << 30;

/// Of what zstd offers more than the usual: it is packed once and fetched often.
const LEVEL: i32 = 10;

/// What an artefact says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    pub made_by: String,
    pub module: String,
    pub version: String,
    pub kernel: String,
    pub arch: String,
    /// The key of the build in the store of the machine that built it.
    pub key: String,
    pub made_of: MadeOf,
    /// See [`Wanted::settings`].
    pub settings: String,
    pub modules: Vec<Module>,
    /// What else is in the archive, but for this manifest.
    members: BTreeMap<PathBuf, Member>,
}

/// One of the modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// In the archive.
    pub path: PathBuf,
    pub vermagic: Option<String>,
    pub license: Option<String>,
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    size: u64,
    sha256: String,
}

/// What is asked of shared stores: all that can be told of a build without headers and compiler.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub id: &'a ModuleId,
    pub target: &'a Target,
    /// The digest of the module's sources.
    pub sources: String,
    /// The digest of the patches and scripts that the administrator lays over them.
    pub overlaid: String,
    /// The digest of what else the administrator says of the build (`/etc/dkms/M.conf` and its
    /// like, directives), and of which versions of other modules it is built against.
    pub settings: String,
    /// The digest of the kernel's headers, where they are there.
    pub headers: Option<String>,
}

impl Wanted<'_> {
    /// Where an artefact is found: words for people, as far as they fit into a registry's tag (128
    /// of few characters), and a digest that is decisive.
    pub fn name(&self) -> String {
        let Self { id, target, .. } = self;
        let words = [id.name(), id.version(), target.kernel.as_str(), target.arch.as_str()];
        let mut hasher = blake3::Hasher::new();
        for part in words.iter().copied().chain([&*self.sources, &*self.overlaid, &*self.settings]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
        let words: String = words.join("-").chars().map(plain).take(90).collect();
        format!("{words}-{}", &hasher.finalize().to_hex()[..32])
    }
}

/// What has been read and is what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    pub manifest: Manifest,
    pub entry: Entry,
}

impl Artefact {
    /// An artefact of what a build has made.
    pub fn new(wanted: &Wanted<'_>, key: &str, made_of: MadeOf, entry: Entry) -> Self {
        let modules = entry.built.iter().map(|(path, image)| {
            let info = ModInfo::read(image).ok();
            let said = |name: &str| info.as_ref().and_then(|info| info.get(name)).map(str::to_owned);
            Module {
                path: Path::new("built").join(path),
                vermagic: said("vermagic"),
                license: said("license"),
            }
        });
        let manifest = Manifest {
            format: FORMAT,
            made_by: format!("dkms-hooks {}", crate::VERSION),
            module: wanted.id.name().to_owned(),
            version: wanted.id.version().to_owned(),
            kernel: wanted.target.kernel.to_string(),
            arch: wanted.target.arch.to_string(),
            key: key.to_owned(),
            made_of,
            settings: wanted.settings.clone(),
            modules: modules.collect(),
            members: BTreeMap::new(),
        };
        Self { manifest, entry }
    }

    /// The archive.
    pub fn pack(mut self) -> Result<Vec<u8>> {
        let packing = "packing an artefact";
        let members = self.entry.members().map(|(path, _, content)| (path, Member::of(content)));
        self.manifest.members = members.collect();
        let digests = self.manifest.members.iter().map(|(path, member)| (path.as_path(), &*member.sha256));
        let sbom = serde_json::to_vec_pretty(&sbom::document(&self.manifest, digests)).context(packing)?;
        self.manifest.members.insert(SBOM.into(), Member::of(&sbom));
        let manifest = serde_json::to_vec_pretty(&self.manifest).context(packing)?;
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).context(packing)?);
        let own = [(PathBuf::from(MANIFEST), 0o644, &*manifest), (PathBuf::from(SBOM), 0o644, &*sbom)];
        for (path, mode, content) in own.into_iter().chain(self.entry.members()) {
            entry::append(&mut archive, &path, mode, content).context(packing)?;
        }
        let packed = archive.into_inner().and_then(zstd::Encoder::finish).context(packing)?;
        ensure!(packed.len() as u64 <= MOST_PACKED, "it is larger than {} MiB", MOST_PACKED >> 20);
        Ok(packed)
    }

    /// Reads an archive; fails unless it holds what its manifest lists, and nothing else.
    pub fn unpack(packed: &[u8]) -> Result<Self> {
        let mut members = BTreeMap::new();
        entry::read(packed, MOST_UNPACKED, |path, mode, content| {
            ensure!(
                members.insert(path.to_owned(), (mode, content)).is_none(),
                "{} is in it twice",
                path.display()
            );
            Ok(())
        })?;
        let (_, text) = members.remove(Path::new(MANIFEST)).context("it has no manifest")?;
        let manifest = manifest(&text)?;
        let mut entry = Entry::default();
        for (path, listed) in &manifest.members {
            let shown = path.display();
            let (mode, content) =
                members.remove(path).with_context(|| format!("{shown} is missing in it"))?;
            ensure!(Member::of(&content) == *listed, "{shown} in it is not what its manifest says");
            if path != Path::new(SBOM) {
                entry.take(path, mode, content)?;
            }
        }
        if let Some(path) = members.keys().next() {
            anyhow::bail!("{} in it is not in its manifest", path.display());
        }
        Ok(Self { manifest, entry })
    }
}

/// Reads a manifest: of another format, nothing but that can be told.
fn manifest(text: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Any {
        format: u32,
    }
    let reading = "reading its manifest";
    let Any { format } = serde_json::from_slice(text).context(reading)?;
    ensure!(format == FORMAT, "it has the format {format}, and this dkms knows the format {FORMAT}");
    serde_json::from_slice(text).context(reading)
}

impl Member {
    fn of(content: &[u8]) -> Self {
        let digest = Sha256::digest(content);
        let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { size: content.len() as u64, sha256 }
    }
}

impl Manifest {
    /// Fails unless this is what is wanted; the error says what else it is.
    pub fn ensure_is(&self, wanted: &Wanted<'_>) -> Result<()> {
        let asked = format!("{} for {}", wanted.id, wanted.target);
        let is = format!("{}/{} for {} ({})", self.module, self.version, self.kernel, self.arch);
        ensure!(is == asked, "it is {is}, not {asked}");
        let of = &self.made_of;
        ensure!(
            of.sources == wanted.sources,
            "it was built from other sources of {} than those here",
            wanted.id
        );
        ensure!(
            of.overlaid == wanted.overlaid && self.settings == wanted.settings,
            "it was built with other patches or settings of /etc/dkms, or against other versions of the modules \
             that it needs"
        );
        let same_headers = wanted.headers.as_ref().is_none_or(|headers| *headers == of.headers);
        ensure!(
            same_headers,
            "it was built against other headers of {} than those here",
            wanted.target.kernel
        );
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::module::Arch;
    use rstest::rstest;

    fn made_of() -> MadeOf {
        let text = String::from;
        MadeOf {
            headers: text("h"),
            toolchain: text("t"),
            sources: text("s"),
            overlaid: text("o"),
            from: None,
        }
    }

    fn id() -> ModuleId {
        ModuleId::new("foo", "1.0+b~1").unwrap()
    }

    fn target() -> Target {
        Target { kernel: "6.1-1".parse().unwrap(), arch: Arch::new("x86_64").unwrap() }
    }

    fn wanted<'a>(id: &'a ModuleId, target: &'a Target) -> Wanted<'a> {
        let text = String::from;
        let headers = Some(text("h"));
        Wanted { id, target, sources: text("s"), overlaid: text("o"), settings: text("e"), headers }
    }

    fn artefact() -> Artefact {
        let image = crate::module_file::tests::module(b"vermagic=6.1-1 SMP \0license=GPL\0");
        let entry = Entry {
            built: vec![("src/foo.ko".into(), image)],
            kept: vec![("log/make.log".into(), 0o644, b"it was built".to_vec())],
        };
        let (id, target) = (id(), target());
        Artefact::new(&wanted(&id, &target), "key", made_of(), entry)
    }

    #[test]
    fn what_is_packed_comes_back() {
        let packed = artefact().pack().unwrap();
        let read = Artefact::unpack(&packed).unwrap();
        assert_eq!(read.entry, artefact().entry);
        assert_eq!(read.manifest.modules[0].vermagic.as_deref(), Some("6.1-1 SMP "));
        assert_eq!(artefact().pack().unwrap(), packed, "nothing depends on the day");
    }

    #[test]
    fn a_name_is_a_tag_and_tells_builds_apart() {
        let (id, target) = (id(), target());
        let name = wanted(&id, &target).name();
        assert!(name.starts_with("foo-1.0_b_1-6.1-1-x86_64-"), "{name}");
        let other = Wanted { settings: "f".to_owned(), ..wanted(&id, &target) };
        assert_ne!(other.name(), name);
        let without_headers = Wanted { headers: None, ..wanted(&id, &target) };
        assert_eq!(without_headers.name(), name);
        let long = ModuleId::new(&"x".repeat(100), &"1".repeat(100)).unwrap();
        assert!(wanted(&long, &target).name().len() <= 128);
    }

    #[rstest]
    #[case::same(|_: &mut Manifest| {}, "")]
    #[case::module(|of: &mut Manifest| of.module = "bar".to_owned(), "it is bar/1.0+b~1 for 6.1-1 (x86_64), not foo")]
    #[case::version(|of: &mut Manifest| of.version = "2.0".to_owned(), "it is foo/2.0")]
    #[case::kernel(|of: &mut Manifest| of.kernel = "6.2".to_owned(), "for 6.2 (x86_64), not")]
    #[case::arch(|of: &mut Manifest| of.arch = "aarch64".to_owned(), "(aarch64), not")]
    #[case::sources(|of: &mut Manifest| of.made_of.sources = "x".to_owned(), "from other sources")]
    #[case::overlaid(|of: &mut Manifest| of.made_of.overlaid = "x".to_owned(), "other patches or settings")]
    #[case::settings(|of: &mut Manifest| of.settings = "x".to_owned(), "other patches or settings")]
    #[case::headers(|of: &mut Manifest| of.made_of.headers = "x".to_owned(), "other headers")]
    #[case::compiler(|of: &mut Manifest| of.made_of.toolchain = "x".to_owned(), "")]
    fn only_what_was_asked_for_is_taken(#[case] change: fn(&mut Manifest), #[case] want: &str) {
        let (id, target) = (id(), target());
        let mut manifest = artefact().manifest;
        change(&mut manifest);
        let said =
            manifest.ensure_is(&wanted(&id, &target)).map_or_else(|why| why.to_string(), |()| String::new());
        assert!(said.contains(want) && said.is_empty() == want.is_empty(), "{said}");
    }

    type Members = Vec<(PathBuf, Vec<u8>)>;

    /// An artefact with its members changed.
    fn repacked(change: impl Fn(&mut Members)) -> Vec<u8> {
        let mut members = Members::new();
        let packed = artefact().pack().unwrap();
        entry::read(&packed, u64::MAX, |path, _, content| {
            members.push((path.to_owned(), content));
            Ok(())
        })
        .unwrap();
        change(&mut members);
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        for (path, content) in members {
            entry::append(&mut archive, &path, 0o644, &content).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[rstest]
    #[case::changed(|members: &mut Members| members[2].1[0] ^= 1, "is not what its manifest says")]
    #[case::missing(|members: &mut Members| drop(members.pop()), "is missing in it")]
    #[case::more(|members: &mut Members| members.push(("built/x".into(), vec![])), "is not in its manifest")]
    #[case::twice(|members: &mut Members| members.push(members[2].clone()), "is in it twice")]
    #[case::no_manifest(|members: &mut Members| drop(members.remove(0)), "no manifest")]
    #[case::other_format(|members: &mut Members| members[0].1 = b"{\"format\": 2}".to_vec(), "the format 2")]
    fn an_archive_is_what_its_manifest_says(#[case] change: fn(&mut Members), #[case] want: &str) {
        let why = format!("{:#}", Artefact::unpack(&repacked(change)).unwrap_err());
        assert!(why.contains(want), "{why}");
    }
}
