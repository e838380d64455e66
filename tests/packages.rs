// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real `*-dkms` packages, installed by the real apt, through the update of a real kernel, the
//! removal of the old one and their own purge: in a Debian that has our package instead of dkms,
//! and in one that has Debian's. What dkms brings about, ours does.
//!
//! What Debian's dkms did is written down in the test cache, by the versions of all packages.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use common::{Lab, Series};
use fs_err as fs;
use rstest::rstest;
use serde::{Deserialize, Serialize};

/// Bump it when what is done or written down changes.
const RECIPE: u32 = 1;

const TWELVE: [&str; 12] = [
    "acpi-call-dkms",
    "bbswitch-dkms",
    "ddcci-dkms",
    "dm-writeboost-dkms",
    "evdi-dkms",
    "iptables-netflow-dkms",
    "lttng-modules-dkms",
    "openafs-modules-dkms",
    "r8168-dkms",
    "v4l2loopback-dkms",
    "xtables-addons-dkms",
    "zfs-dkms",
];

/// Packages that do not compile for these kernels: dkms leaves them half-configured, and with them
/// each kernel that is installed later. Ours warns, as the machine boots without them.
const DOES_NOT_COMPILE: [&str; 1] = ["lttng-modules-dkms"];

const INSTALLED: &str = "install ok installed";
const CONFIGURATION: &str = "install ok config-files";
const UNKNOWN: &str = "unknown";
const HALF_CONFIGURED: &str = "install ok half-configured";

/// One way through it all.
#[derive(Debug, Serialize, Deserialize)]
struct Tour {
    /// The package that stands for dkms, with its version.
    dkms: String,
    /// By what was done.
    steps: BTreeMap<String, Step>,
}

/// What there is to see after a step.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    /// How long apt took.
    seconds: f32,
    /// How long each package took to be configured.
    configured_in: BTreeMap<String, i64>,
    states: BTreeMap<String, String>,
    /// What modprobe would load of what no kernel brings: vermagic and dependencies by file.
    modules: BTreeMap<String, String>,
    status: Vec<String>,
    /// What registered modules leave outside of the install tree, and links that lead nowhere.
    left: Vec<String>,
}

const INSTALL: &str = "1 install";
const UPDATE: &str = "2 kernel update";
const REMOVE: &str = "3 old kernel removed";
const PURGE: &str = "4 purge";

fn kernel_packages(release: &str) -> [String; 2] {
    [format!("linux-headers-{release}"), format!("linux-image-{release}")]
}

impl Tour {
    /// `dkms` brings the dkms that the rest is about; all packages have been downloaded.
    fn run(lab: &Lab, dkms: &str, packages: &[&str]) -> Self {
        let [old, new] = [Series::Old, Series::New].map(|series| kernel_packages(series.release()).join(" "));
        let list = packages.join(" ");
        let steps = [
            (INSTALL, format!("install {list}")),
            (UPDATE, format!("install {new}")),
            (REMOVE, format!("purge {old}")),
            (PURGE, format!("purge {list}")),
        ];
        let steps = steps.map(|(name, words)| (name.to_owned(), Step::take(lab, &words, packages)));
        Self { dkms: dkms.to_owned(), steps: BTreeMap::from(steps) }
    }

    fn step(&self, name: &str) -> &Step {
        &self.steps[name]
    }
}

impl Step {
    fn take(lab: &Lab, words: &str, packages: &[&str]) -> Self {
        let log = || fs::read_to_string(lab.path("var/log/dpkg.log")).unwrap_or_default();
        let known = log().len();
        let started = Instant::now();
        // Its exit code says less than the states of the packages.
        let apt = lab.apt(words);
        let seconds = started.elapsed().as_secs_f32();
        // For whoever wants to know why (DKMS_TEST_KEEP).
        lab.write(
            &format!("apt-{}", words.replace(' ', "-").chars().take(60).collect::<String>()),
            &apt.to_string(),
        );
        let kernels = [Series::Old, Series::New].map(|series| kernel_packages(series.release()));
        let all: Vec<&str> =
            packages.iter().copied().chain(kernels.iter().flatten().map(String::as_str)).collect();
        let lines = |script: &str| lab.sh(script).stdout().lines().map(str::to_owned).collect::<Vec<_>>();
        Self {
            seconds,
            configured_in: configuration_times(log().get(known..).unwrap_or_default()),
            states: lab.states(&all).into_iter().collect(),
            modules: lines(MODULES)
                .iter()
                .map(|line| line.split_once('\t').unwrap())
                .map(|(file, about)| (file.to_owned(), about.to_owned()))
                .collect(),
            status: lines("dkms status"),
            left: lines(LEFT),
        }
    }
}

/// For each module outside of the kernels' own: the file that modprobe takes, vermagic, depends.
const MODULES: &str = r#"
    cd /lib/modules
    for kernel in *; do
        find "$kernel" -path "$kernel/kernel" -prune -o -name '*.ko*' -print | while read -r file; do
            name=${file##*/}
            about() { modinfo -k "$kernel" -F "$1" "${name%%.ko*}" || echo "no $1"; }
            printf '%s\t%s, %s, depends on %s\n' "$file" "$(about filename)" "$(about vermagic)" "$(about depends)"
        done
    done"#;

const LEFT: &str = "
    ls -d /usr/src/*/dkms.conf /var/lib/dkms/* /lib/modules/*/updates 2>/dev/null | grep -v '^/var/lib/dkms/mok\\.' || true
    find /lib/modules /usr/src /var/lib/dkms -xtype l 2>/dev/null || true";

/// How many seconds dpkg was at each package's first configuration, from its log.
fn configuration_times(log: &str) -> BTreeMap<String, i64> {
    let lines: Vec<(jiff::civil::DateTime, Vec<&str>)> = log
        .lines()
        .filter_map(|line| {
            let time = line.get(..19)?.parse().ok()?;
            Some((time, line.get(20..)?.split(' ').collect()))
        })
        .collect();
    let mut times = BTreeMap::new();
    for (at, (began, words)) in lines.iter().enumerate() {
        let ["configure", package, ..] = words.as_slice() else { continue };
        let ended = lines[at + 1..].iter().find(|(_, words)| match words.as_slice() {
            ["status", "installed", name, ..] => name == package,
            [word, ..] => ["configure", "trigproc", "startup"].contains(word),
            [] => false,
        });
        let ended = ended.or(lines.last()).map_or(*began, |(time, _)| *time);
        let name = package.split(':').next().unwrap().to_owned();
        times.entry(name).or_insert((ended - *began).get_seconds());
    }
    times
}

/// What Debian's dkms does, from the cache where it has been seen with the same packages.
fn debians(packages: &[&str]) -> Tour {
    let lab = Lab::debian();
    let everything = with_kernel(packages, "dkms");
    let versions = lab.sh(&format!("apt-cache policy {} | grep -E '^[a-z]|Candidate'", everything.join(" ")));
    let key = format!("{RECIPE}\n{}", versions.succeeds().stdout());
    let recording = recording(&key);
    if let Ok(text) = fs::read_to_string(&recording) {
        return serde_json::from_str(&text).unwrap();
    }
    lab.fetch(&everything.iter().map(String::as_str).collect::<Vec<_>>());
    lab.apt("install dkms").succeeds();
    let tour = Tour::run(&lab, &format!("dkms {}", version_of(&lab, "dkms")), packages);
    fs::create_dir_all(recording.parent().unwrap()).unwrap();
    fs::write(&recording, serde_json::to_string_pretty(&tour).unwrap()).unwrap();
    tour
}

fn ours(packages: &[&str]) -> Tour {
    let lab = Lab::debian();
    lab.fetch(&with_kernel(packages, "patch").iter().map(String::as_str).collect::<Vec<_>>());
    lab.apt_install_ours().succeeds();
    let tour = Tour::run(&lab, &format!("dkms-hooks {}", version_of(&lab, "dkms-hooks")), packages);
    lab.assert_state("dkms", "unknown ok not-installed");
    tour
}

/// These packages with whichever dkms and what comes in the kernel's update.
fn with_kernel(packages: &[&str], dkms: &str) -> Vec<String> {
    let new = kernel_packages(Series::New.release());
    packages.iter().copied().chain([dkms]).map(str::to_owned).chain(new).collect()
}

fn version_of(lab: &Lab, package: &str) -> String {
    lab.sh(&format!("dpkg-query -Wf '${{Version}}' {package}")).succeeds().stdout()
}

fn recording(key: &str) -> PathBuf {
    let cache = std::env::var_os("DKMS_TEST_CACHE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-cache"), PathBuf::from);
    // FNV-1a: the name has to be the same in every build.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    cache.join(format!("dkms-tours/{hash:016x}.json"))
}

/// What differs, but for the packages that dkms's exit policy fails: those must differ.
fn differences(dkms: &Tour, ours: &Tour, packages: &[&str]) -> Vec<String> {
    let failing: Vec<&str> = DOES_NOT_COMPILE.into_iter().filter(|name| packages.contains(name)).collect();
    let [old, new] = [Series::Old, Series::New].map(|series| kernel_packages(series.release()));
    let mut found = Vec::new();
    for (name, step) in &ours.steps {
        let theirs = dkms.step(name);
        for (package, state) in &step.states {
            let fails_with_dkms = match name.as_str() {
                INSTALL => failing.contains(&package.as_str()),
                UPDATE | REMOVE => {
                    failing.contains(&package.as_str()) || (!failing.is_empty() && new.contains(package))
                }
                _ => false,
            };
            // apt stops at what is half-configured, before it purges what it has removed.
            let stays_with_dkms =
                matches!(name.as_str(), REMOVE | PURGE) && !failing.is_empty() && *package == old[1];
            let expected = if fails_with_dkms {
                (HALF_CONFIGURED, INSTALLED)
            } else if stays_with_dkms {
                (CONFIGURATION, UNKNOWN)
            } else {
                (state.as_str(), &**state)
            };
            if (theirs.states[package].as_str(), state.as_str()) != expected {
                found.push(format!(
                    "{name}: {package} is '{}' with dkms, '{state}' with ours",
                    theirs.states[package]
                ));
            }
        }
        let modules =
            |step: &Step| step.modules.iter().map(|(file, about)| format!("{file}: {about}")).collect();
        let sides: [(&str, Vec<String>, Vec<String>); 2] = [
            ("module", modules(theirs), modules(step)),
            ("status", theirs.status.clone(), step.status.clone()),
        ];
        for (what, theirs, ours) in sides {
            let only = |these: &[String], those: &[String], whose: &str| {
                let lone = these.iter().filter(|line| !those.contains(line));
                lone.map(|line| format!("{name}: {what} only with {whose}: {line}")).collect::<Vec<_>>()
            };
            found.extend(only(&theirs, &ours, "dkms"));
            found.extend(only(&ours, &theirs, "ours"));
        }
    }
    found
}

/// A row for each package, and for the kernel's update as a whole.
fn table(dkms: &Tour, ours: &Tour, packages: &[&str]) -> String {
    let word = |state: &str| state.rsplit(' ').next().unwrap().to_owned();
    let mut rows = vec![["package", "dkms", "ours", "dkms s", "ours s"].map(str::to_owned)];
    let installed = [dkms, ours].map(|tour| tour.step(INSTALL));
    for package in packages {
        let [theirs, our] = installed.map(|step| word(&step.states[*package]));
        let [their_time, our_time] =
            installed.map(|step| step.configured_in.get(*package).copied().unwrap_or(0));
        rows.push([(*package).to_owned(), theirs, our, their_time.to_string(), our_time.to_string()]);
    }
    let image = &kernel_packages(Series::New.release())[1];
    for name in ours.steps.keys() {
        let [theirs, our] = [dkms, ours].map(|tour| tour.step(name));
        let [their_time, our_time] = [theirs, our].map(|step| format!("{:.0}", step.seconds));
        let [theirs, our] = if name == UPDATE {
            [theirs, our].map(|step| word(&step.states[image]))
        } else {
            [String::new(), String::new()]
        };
        rows.push([format!("all: {name}"), theirs, our, their_time, our_time]);
    }
    let row = |[package, theirs, our, their_time, our_time]: &[String; 5]| {
        format!("{package:<26} {theirs:<16} {our:<16} {their_time:>7} {our_time:>7}\n")
    };
    format!("{} beside {}\n{}", dkms.dkms, ours.dkms, rows.iter().map(row).collect::<String>())
}

#[track_caller]
fn fare_as_with_dkms(packages: &[&str]) {
    let started = Instant::now();
    let dkms = debians(packages);
    let ours = ours(packages);
    // Past the test harness, which would swallow it.
    let table = table(&dkms, &ours, packages);
    let seconds = started.elapsed().as_secs();
    drop(writeln!(std::io::stderr(), "\n{table}took {seconds} s, without what was known of dkms already"));

    assert_eq!(differences(&dkms, &ours, packages), [] as [String; 0]);
    let purged = ours.step(PURGE);
    assert!(purged.modules.is_empty() && purged.status.is_empty(), "{purged:?}");
    assert!(purged.left.is_empty(), "{:?}", purged.left);
}

/// Two that differ in how they are set up, and one with several modules.
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn three_packages_fare_as_with_dkms() {
    fare_as_with_dkms(&["acpi-call-dkms", "ddcci-dkms", "v4l2loopback-dkms"]);
}

#[rstest]
#[ignore = "takes an hour (root, network): make test-packages"]
fn twelve_packages_fare_as_with_dkms() {
    fare_as_with_dkms(&TWELVE);
}
