// SPDX-License-Identifier: MIT OR Apache-2.0
//! dnf 5's plugin "actions" (libdnf5-actions(8), mode=json): a JSON object on standard output asks, one
//! on standard input answers. It tells which packages come, but of most only the repository: their
//! files are looked for where dnf 5 keeps them. Nothing but the request to stop ends a transaction.

use std::io::{PipeWriter, Read, Stdin, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::de::{Deserializer, IoRead};
use serde_json::{Value, json};

use super::dnf;
use super::preflight::preflight;
use crate::commands::session::Session;
use crate::conf::policy::Preflight;
use crate::sys::{files, report};
use crate::trial::Kind;

pub(super) fn run(session: &Session, args: &[String]) -> Result<u8> {
    if args != ["preflight"] {
        bail!("expected: hook dnf5 preflight");
    }
    let call = &session.recorder.call;
    let mut dnf = match call.by_hand {
        true => None,
        false => Some(Dnf::<Stdin, PipeWriter>::at_our_streams()?),
    };
    let packages = match &mut dnf {
        // People give paths, as what is replayed is recorded.
        None => dnf::wanted(session)?,
        Some(dnf) => wanted(session, dnf)?,
    };
    let code =
        preflight(session, packages.into_iter().map(|path| (Kind::Rpm, path)).collect(), Preflight::Hold)?;
    if let (Some(mut dnf), true) = (dnf, code != 0) {
        dnf.stop("dkms has stopped this transaction; see above, or: dkms log last")?;
    }
    Ok(code)
}

/// The packages that are tried, and the directories that they are looked for in.
pub(super) fn named(answers: &[u8]) -> Vec<String> {
    let mut dnf = Dnf::new(answers, std::io::sink());
    let packages = dnf.packages().map(|come| dnf::needed(come, |package| &package.name));
    let packages = packages.unwrap_or_default().into_iter().map(|package| package.location);
    let caches = dnf.caches().unwrap_or_default().into_iter();
    packages.chain(caches.map(|(_, path)| path.display().to_string())).collect()
}

/// The files of what comes and builds need.
fn wanted<R: Read, W: Write>(session: &Session, dnf: &mut Dnf<R, W>) -> Result<Vec<PathBuf>> {
    let packages = dnf::needed(dnf.packages()?, |package| &package.name);
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let call = &session.recorder.call;
    let caches = dnf.caches()?;
    let mut found = Vec::new();
    for package in packages {
        match package.file(&call.directory, &caches) {
            Some(file) => found.push(file),
            None => session.report.err(format_args!(
                "dkms: not tried: {}: its file is not where dnf 5 keeps what it has downloaded",
                package.name
            )),
        }
    }
    call.heard(found.iter().map(|file| format!("{}\n", file.display())).collect());
    Ok(found)
}

/// A package that is about to be installed.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
struct Package {
    name: String,
    repo_id: String,
    /// Its path below the repository; of one that was named on the command line or is taken from
    /// an offline transaction the path of its file.
    location: String,
}

#[derive(Debug, Deserialize)]
struct Packages {
    trans_packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    keys_val: Vec<Setting>,
}

#[derive(Debug, Deserialize)]
struct Setting {
    key: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Reply<T> {
    status: String,
    #[serde(default)]
    message: String,
    #[serde(rename = "return")]
    answer: Option<T>,
}

/// A repository and the directory below which it has its own.
type Cache = (String, PathBuf);

/// dnf 5 at the other end.
struct Dnf<R: Read, W: Write> {
    answers: Deserializer<IoRead<R>>,
    questions: W,
}

impl Dnf<Stdin, PipeWriter> {
    fn at_our_streams() -> Result<Self> {
        Ok(Self::new(std::io::stdin(), report::give_up_output()?))
    }
}

impl<R: Read, W: Write> Dnf<R, W> {
    fn new(answers: R, questions: W) -> Self {
        Self { answers: Deserializer::from_reader(answers), questions }
    }

    fn packages(&mut self) -> Result<Vec<Package>> {
        let coming = json!([{"key": "direction", "value": "IN"}]);
        let answer: Packages = self
            .get("trans_packages", json!({"output": ["name", "repo_id", "location"], "filters": coming}))?;
        Ok(answer.trans_packages)
    }

    fn caches(&mut self) -> Result<Vec<Cache>> {
        let answer: Settings = self.get("conf", json!({"key": "*.cachedir"}))?;
        let of_repository = |setting: Setting| {
            Some((setting.key.strip_suffix(".cachedir")?.to_owned(), PathBuf::from(setting.value)))
        };
        Ok(answer.keys_val.into_iter().filter_map(of_repository).collect())
    }

    fn get<T: DeserializeOwned>(&mut self, domain: &str, args: Value) -> Result<T> {
        self.send(&json!({"op": "get", "domain": domain, "args": args}))?;
        let reply = Reply::<T>::deserialize(&mut self.answers).context("reading what dnf 5 answers")?;
        match reply.answer {
            Some(answer) if reply.status == "OK" => Ok(answer),
            _ => bail!("dnf 5 does not tell its {domain}: {}", reply.message),
        }
    }

    /// There is no answer to that.
    fn stop(&mut self, why: &str) -> Result<()> {
        self.send(&json!({"op": "stop", "args": {"message": why}}))
    }

    fn send(&mut self, request: &Value) -> Result<()> {
        writeln!(self.questions, "{request}").and_then(|()| self.questions.flush()).context("asking dnf 5")
    }
}

impl Package {
    /// Its file: at its place, or in the cache, where repositories have directories of their own by
    /// the name of `REPOSITORY-HASH`. Where there are several, addresses have changed: the newest counts.
    fn file(&self, directory: &Path, caches: &[Cache]) -> Option<PathBuf> {
        if self.repo_id == "@commandline" || self.location.starts_with('/') {
            let named = directory.join(&self.location);
            return named.is_file().then_some(named);
        }
        let (_, cache) = caches.iter().find(|(repository, _)| *repository == self.repo_id)?;
        let file = Path::new(&self.location).file_name()?;
        let is_ours = |name: &String| {
            let hash = name.strip_prefix(&self.repo_id).and_then(|rest| rest.strip_prefix('-'));
            hash.is_some_and(|hash| hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
        };
        let kept = files::names(cache).unwrap_or_default().into_iter().filter(is_ours);
        kept.map(|name| cache.join(name).join("packages").join(file))
            .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
            .max()
            .map(|(_, path)| path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use rstest::rstest;

    fn package(name: &str, repo_id: &str, location: &str) -> Package {
        Package { name: name.to_owned(), repo_id: repo_id.to_owned(), location: location.to_owned() }
    }

    #[test]
    fn a_dialogue_is_a_line_for_a_question_and_an_object_for_an_answer() {
        // As dnf 5.4 writes them: with or without an end of the line, in any order.
        let answers = r#"{ "op": "reply", "requested_op": "get", "domain": "trans_packages", "return": { "trans_packages":
            [ { "name": "kernel-core", "repo_id": "updates", "location": "k\/kernel-core-6.9-1.x86_64.rpm" } ] }, "status": "OK" }
{"op":"reply","status":"OK","return":{"keys_val":[{"key":"a.b.cachedir","value":"/var/cache/libdnf5"}]}}"#;
        let mut questions = Vec::new();
        let mut dnf = Dnf::new(answers.as_bytes(), &mut questions);
        assert_eq!(
            dnf.packages().unwrap(),
            [package("kernel-core", "updates", "k/kernel-core-6.9-1.x86_64.rpm")]
        );
        assert_eq!(dnf.caches().unwrap(), [("a.b".to_owned(), PathBuf::from("/var/cache/libdnf5"))]);
        dnf.stop("\"no\"\n").unwrap();
        let asked = String::from_utf8(questions).unwrap();
        let asked: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let filters = json!([{"key": "direction", "value": "IN"}]);
        let output = json!(["name", "repo_id", "location"]);
        let want = [
            json!({"op": "get", "domain": "trans_packages", "args": {"output": output, "filters": filters}}),
            json!({"op": "get", "domain": "conf", "args": {"key": "*.cachedir"}}),
            json!({"op": "stop", "args": {"message": "\"no\"\n"}}),
        ];
        assert_eq!(asked, want);
    }

    #[rstest]
    #[case::refused(
        r#"{"op":"reply","status":"ERROR","message":"Unknown domain"}"#,
        "its trans_packages: Unknown domain"
    )]
    #[case::gone("", "reading what dnf 5 answers: EOF")]
    #[case::cut_off(r#"{"op":"reply","status":"OK","return":{"#, "EOF")]
    #[case::other_attributes(
        r#"{"status":"OK","return":{"trans_packages":[{"name":"a"}]}}"#,
        "missing field `repo_id`"
    )]
    #[case::no_json("dnf5: command not found\n", "expected value")]
    fn what_is_no_answer_is_an_error(#[case] answer: &str, #[case] want: &str) {
        let error = Dnf::new(answer.as_bytes(), Vec::new()).packages().unwrap_err();
        assert!(format!("{error:#}").contains(want), "{error:#}");
    }

    #[rstest]
    #[case::relative(("@commandline", "b/foo-1-1.noarch.rpm"), Some("b/foo-1-1.noarch.rpm"))]
    #[case::gone(("@commandline", "c/foo-1-1.noarch.rpm"), None)]
    #[case::below_its_repository(("none", "b/foo-1-1.noarch.rpm"), None)]
    #[case::downloaded(("test", "f/foo-1-1.noarch.rpm"), Some("cache/test-00ff/packages/foo-1-1.noarch.rpm"))]
    #[case::longer_name(("test-x", "foo-1-1.noarch.rpm"), Some("cache/test-x-00ff/packages/foo-1-1.noarch.rpm"))]
    #[case::another_package(("test", "f/bar-1-1.noarch.rpm"), None)]
    #[case::another_repository(("other", "f/foo-1-1.noarch.rpm"), None)]
    #[case::nowhere(("unknown", "f/foo-1-1.noarch.rpm"), None)]
    fn files_are_found(#[case] (repository, location): (&str, &str), #[case] want: Option<&str>) {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["b", "cache/test-00ff/packages", "cache/test-x-00ff/packages", "cache/test-x-00ff/repodata"]
        {
            fs::create_dir_all(dir.path().join(file)).unwrap();
            fs::write(dir.path().join(file).join("foo-1-1.noarch.rpm"), "").unwrap();
        }
        let cache = |repository: &str| (repository.to_owned(), dir.path().join("cache"));
        let caches = ["test", "test-x", "other", "@commandline"].map(cache);
        let found = package("foo", repository, location).file(dir.path(), &caches);
        assert_eq!(found, want.map(|path| dir.path().join(path)));
    }

    #[test]
    fn the_newest_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (hash, seconds) in [("aa", 10), ("bb", 30), ("cc", 20)] {
            let packages = dir.path().join(format!("test-{hash}/packages"));
            fs::create_dir_all(&packages).unwrap();
            let file = fs::File::create(packages.join("foo.rpm")).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.file().set_modified(time).unwrap();
        }
        let caches = [("test".to_owned(), dir.path().to_owned())];
        let found = package("foo", "test", "foo.rpm").file(Path::new("/nowhere"), &caches);
        assert_eq!(found, Some(dir.path().join("test-bb/packages/foo.rpm")));
    }
}
