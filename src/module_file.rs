// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel module as a file: its modinfo, its compression, and whether a kernel would take it.
//! Pure: bytes in, values out.

use std::borrow::Cow;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use object::{Architecture, Object, ObjectKind, ObjectSection};

use crate::kernel::{KernelConfig, KernelRelease};
use crate::module::Arch;

/// How module files are compressed for a kernel (kernel/module/Kconfig, MODULE_COMPRESS_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// What goes behind `.ko` in a file's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// What a kernel's configuration asks for. `MODULE_COMPRESS_ALL=n` (since 6.12) leaves the
    /// files of external modules as they are, yet kmod loads either form.
    pub fn of_kernel(config: &KernelConfig) -> Self {
        let asked = |names: &[&str]| names.iter().any(|name| config.enabled(name));
        if asked(&["CONFIG_MODULE_COMPRESS_ZSTD"]) {
            Self::Zstd
        } else if asked(&["CONFIG_MODULE_COMPRESS_XZ"]) {
            Self::Xz
        } else if asked(&["CONFIG_MODULE_COMPRESS_GZIP"]) {
            Self::Gzip
        } else {
            Self::None
        }
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Compresses a module so that the kernel and kmod can read it: xz with a CRC32 check
    /// (Documentation/staging/xz.rst: the kernel knows no other).
    pub fn compress(self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let compressed = match self {
            Self::None => Ok(bytes),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_easy_encoder(6, liblzma::stream::Check::Crc32)
                    .context("setting up xz compression")?;
                let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(&bytes).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::stream::encode_all(bytes.as_slice(), 0),
        };
        compressed.context("compressing a module")
    }
}

/// The largest module that we unpack, in bytes; nvidia.ko with debug information has 100 MiB.
const LARGEST: u64 = 1 << 30;

/// The module's ELF image, unpacked if the file is compressed.
pub fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>> {
    let reader: Box<dyn Read> = match Compression::of_bytes(bytes) {
        Compression::None => return Ok(Cow::Borrowed(bytes)),
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Compression::Xz => Box::new(liblzma::read::XzDecoder::new(bytes)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(bytes).context("unpacking a module")?)
        }
    };
    let mut image = Vec::new();
    reader.take(LARGEST).read_to_end(&mut image).context("unpacking a module")?;
    Ok(Cow::Owned(image))
}

/// A name as the kernel compares it: with underscores.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The module that a file holds by its name: `snd-foo.ko.xz` → `snd-foo`.
pub fn stem(file_name: &str) -> Option<&str> {
    ["", ".gz", ".xz", ".zst"].iter().find_map(|suffix| file_name.strip_suffix(suffix)?.strip_suffix(".ko"))
}

/// What a module says of itself in its `.modinfo` section (include/linux/moduleinfo.h: a
/// sequence of `key=value`, each ended by a NUL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModInfo(Vec<(String, String)>);

impl ModInfo {
    /// Reads an unpacked module; fails if it is not a relocatable ELF file with that section.
    pub fn read(image: &[u8]) -> Result<Self> {
        let elf = object::File::parse(image).context("it is not an ELF file")?;
        if elf.kind() != ObjectKind::Relocatable {
            bail!("it is not a relocatable object");
        }
        let section = elf.section_by_name(".modinfo").context("it has no .modinfo section")?;
        let data = section.data().context("its .modinfo section cannot be read")?;
        Ok(Self(
            data.split(|byte| *byte == 0)
                .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ))
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

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

/// Compares two vermagics as the kernel's same_magic() does (kernel/module/main.c): with symbol
/// versions on both sides the release, the first word, does not count.
pub fn same_magic(module: &str, kernel: &str, has_crcs: bool) -> bool {
    if has_crcs {
        let rest =
            |magic: &'_ str| magic.find(' ').map_or(String::new(), |at| magic[at..].trim_end().to_owned());
        return rest(module) == rest(kernel);
    }
    module.trim_end() == kernel.trim_end()
}

/// The vermagic that modules of a kernel carry (include/linux/vermagic.h), as far as its
/// configuration tells: the architecture's own words are known for x86 and arm64 only.
pub fn kernel_vermagic(kernel: &KernelRelease, config: &KernelConfig) -> Option<String> {
    let on = |name: &str| config.enabled(name);
    let arch = if on("CONFIG_X86_64") {
        ""
    } else if on("CONFIG_ARM64") {
        "aarch64"
    } else {
        return None;
    };
    // RANDSTRUCT adds a hash that only a module of the same build knows.
    if on("CONFIG_RANDSTRUCT") || on("CONFIG_GCC_PLUGIN_RANDSTRUCT") {
        return None;
    }
    // PREEMPT_BUILD says it since 5.16, PREEMPT before that, whether it is dynamic or not.
    let preempt = if on("CONFIG_PREEMPT_RT") {
        "preempt_rt "
    } else if on("CONFIG_PREEMPT_BUILD") || on("CONFIG_PREEMPT") {
        "preempt "
    } else {
        ""
    };
    let word = |name: &str, word: &'static str| if on(name) { word } else { "" };
    Some(format!(
        "{kernel} {}{preempt}{}{}{arch}",
        word("CONFIG_SMP", "SMP "),
        word("CONFIG_MODULE_UNLOAD", "mod_unload "),
        word("CONFIG_MODVERSIONS", "modversions "),
    ))
}

/// What a module has to be for a kernel to take it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The module's own name, where it is known: a file may be installed under another
    /// (DEST_MODULE_NAME), by which modprobe finds it.
    pub name: Option<&'a str>,
    pub kernel: &'a KernelRelease,
    /// `uname -m` of the machines that the kernel runs on.
    pub arch: &'a Arch,
    /// The kernel's vermagic, where it could be found out; else its release alone is compared.
    pub vermagic: Option<&'a str>,
}

/// The machine that an architecture's modules are for; nothing for one that we do not know.
fn machine(arch: &Arch) -> Option<Architecture> {
    Some(match arch.as_str() {
        "x86_64" => Architecture::X86_64,
        "i386" | "i486" | "i586" | "i686" => Architecture::I386,
        "aarch64" => Architecture::Aarch64,
        "ppc64" | "ppc64le" => Architecture::PowerPc64,
        "riscv64" => Architecture::Riscv64,
        "s390x" => Architecture::S390x,
        "loongarch64" => Architecture::LoongArch64,
        arm if arm.starts_with("armv") => Architecture::Arm,
        _ => return None,
    })
}

/// Checks that a kernel would take a module for what it is meant to be: an ELF module for its
/// machine, of this name, whose vermagic fits. The error says which of these failed.
pub fn check_loadable(image: &[u8], wanted: Wanted<'_>) -> Result<ModInfo> {
    let Wanted { name, kernel, arch, vermagic } = wanted;
    let info = ModInfo::read(image)?;
    let built_for = object::File::parse(image).context("it is not an ELF file")?.architecture();
    if machine(arch).is_some_and(|machine| machine != built_for) {
        bail!("it is built for {built_for:?}, not for {arch}");
    }
    // Kernels before 4.13 wrote no name.
    if let (Some(own), Some(name)) = (info.get("name"), name)
        && canonical(own) != canonical(name)
    {
        bail!("it is the module '{own}', not '{name}'");
    }
    let own = info.get("vermagic").context("it has no vermagic")?;
    let fits = match vermagic {
        Some(magic) => {
            let has_crcs =
                [own, magic].iter().all(|magic| magic.split(' ').any(|word| word == "modversions"));
            same_magic(own, magic, has_crcs)
        }
        None => own.split(' ').next() == Some(kernel.as_str()),
    };
    if !fits {
        bail!(
            "its vermagic is '{}', kernel {kernel} wants '{}'",
            own.trim_end(),
            vermagic.unwrap_or(kernel.as_str()).trim_end()
        );
    }
    Ok(info)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use object::write::Object as ElfWriter;
    use rstest::rstest;

    /// An ELF file that says of itself what a module does.
    pub(crate) fn module(info: &[u8]) -> Vec<u8> {
        let mut elf = ElfWriter::new(
            object::BinaryFormat::Elf,
            object::Architecture::X86_64,
            object::Endianness::Little,
        );
        let section = elf.add_section(Vec::new(), b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        elf.append_section_data(section, info, 1);
        elf.write().unwrap()
    }

    fn release(text: &str) -> KernelRelease {
        text.parse().unwrap()
    }

    fn check(image: &[u8], arch: &str, vermagic: Option<&str>) -> Result<ModInfo> {
        let (kernel, arch) = (release("6.1"), Arch::new(arch).unwrap());
        check_loadable(image, Wanted { name: Some("foo"), kernel: &kernel, arch: &arch, vermagic })
    }

    #[rstest]
    #[case::x86("x86_64", true)]
    #[case::arm("aarch64", false)]
    #[case::unheard_of("vax", true)]
    fn a_module_is_for_one_machine(#[case] arch: &str, #[case] fits: bool) {
        assert_eq!(check(&module(b"name=foo\0vermagic=6.1 SMP \0"), arch, None).is_ok(), fits);
    }

    #[rstest]
    #[case::same("6.1 SMP mod_unload ", "6.1 SMP mod_unload ", false, true)]
    #[case::other_release("6.1-55 SMP modversions ", "6.1-56 SMP modversions ", false, false)]
    #[case::other_release_with_crcs("6.1-55 SMP modversions ", "6.1-56 SMP modversions ", true, true)]
    #[case::other_flags_with_crcs("6.1-55 SMP preempt modversions ", "6.1-55 SMP modversions ", true, false)]
    fn magic_compares_as_in_the_kernel(
        #[case] a: &str,
        #[case] b: &str,
        #[case] crcs: bool,
        #[case] same: bool,
    ) {
        assert_eq!(same_magic(a, b, crcs), same);
    }

    #[rstest]
    #[case::good(b"name=foo\0vermagic=6.1 SMP mod_unload \0", None)]
    #[case::dashes(b"name=foo_bar\0vermagic=6.1 SMP mod_unload \0", Some("not 'foo'"))]
    #[case::other_kernel(
        b"name=foo\0vermagic=5.10 SMP mod_unload \0",
        Some("vermagic is '5.10 SMP mod_unload'")
    )]
    #[case::no_magic(b"name=foo\0", Some("no vermagic"))]
    fn a_module_is_checked_by_name_and_vermagic(#[case] info: &[u8], #[case] problem: Option<&str>) {
        let checked = check(&module(info), "x86_64", Some("6.1 SMP mod_unload "));
        match problem {
            None => assert_eq!(checked.unwrap().get("name"), Some("foo")),
            Some(words) => assert!(format!("{:#}", checked.unwrap_err()).contains(words)),
        }
    }

    #[test]
    fn rubbish_is_no_module() {
        assert!(check(b"not an ELF file", "x86_64", None).is_err());
    }

    /// What sign-file appends to a module.
    fn signature(kind: u8, length: u32, signature: &[u8]) -> Vec<u8> {
        let head = [0, 0, kind, 0, 0, 0, 0, 0];
        [signature, &head, &length.to_be_bytes(), b"~Module signature appended~\n"].concat()
    }

    #[test]
    fn a_signed_module_is_still_one_and_comes_apart() {
        let image = module(b"name=foo\0vermagic=6.1 SMP \0");
        let whole = [image.as_slice(), &signature(2, 3, b"abc")].concat();
        assert!(check(&whole, "x86_64", None).is_ok());
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

    #[rstest]
    #[case::gzip(Compression::Gzip)]
    #[case::xz(Compression::Xz)]
    #[case::zstd(Compression::Zstd)]
    #[case::none(Compression::None)]
    fn what_is_compressed_unpacks_to_the_same(#[case] compression: Compression) {
        let image = module(b"name=foo\0");
        let packed = compression.compress(image.clone()).unwrap();
        assert_eq!(Compression::of_bytes(&packed), compression);
        assert_eq!(unpacked(&packed).unwrap(), image);
    }

    #[test]
    fn a_kernels_vermagic_follows_its_configuration() {
        let config = KernelConfig::new(
            "CONFIG_X86_64=y\nCONFIG_SMP=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_MODVERSIONS=y\nCONFIG_PREEMPT_DYNAMIC=y\nCONFIG_PREEMPT_BUILD=y\n",
        );
        assert_eq!(
            kernel_vermagic(&release("6.1.0-56-amd64"), &config).as_deref(),
            Some("6.1.0-56-amd64 SMP preempt mod_unload modversions ")
        );
        assert_eq!(kernel_vermagic(&release("6.1"), &KernelConfig::default()), None);
    }

    #[rstest]
    #[case::since_5_16("CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_PREEMPT_BUILD=y\n", "5.15 preempt ")]
    #[case::dynamic_before_5_16("CONFIG_PREEMPT=y\nCONFIG_PREEMPT_DYNAMIC=y\n", "5.15 preempt ")]
    #[case::real_time("CONFIG_PREEMPT_RT=y\n", "5.15 preempt_rt ")]
    #[case::voluntary("CONFIG_PREEMPT_VOLUNTARY=y\n", "5.15 ")]
    fn preemption_is_named_as_the_kernel_names_it(#[case] config: &str, #[case] want: &str) {
        let config = KernelConfig::new(format!("CONFIG_X86_64=y\n{config}"));
        assert_eq!(kernel_vermagic(&release("5.15"), &config).as_deref(), Some(want));
    }

    #[test]
    fn under_another_file_name_a_module_keeps_its_own() {
        let image = module(b"name=nvidia\0vermagic=6.1 SMP \0");
        let (kernel, arch) = (release("6.1"), Arch::new("x86_64").unwrap());
        let wanted = Wanted { name: None, kernel: &kernel, arch: &arch, vermagic: None };
        assert!(check_loadable(&image, wanted).is_ok());
    }

    #[rstest]
    #[case::plain("foo.ko", Some("foo"))]
    #[case::xz("foo.ko.xz", Some("foo"))]
    #[case::other("foo.txt", None)]
    fn file_names_have_stems(#[case] file: &str, #[case] want: Option<&str>) {
        assert_eq!(stem(file), want);
    }
}
