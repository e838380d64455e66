// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real servers that hold stores of built modules, each in a root or a directory of its own, on
//! this machine's loopback alone. They end with the test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{Lab, lab_sh};

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
    /// Where it is, and what it has.
    pub lab: Option<Lab>,
    _data: Option<tempfile::TempDir>,
}

/// The name and password that servers ask for.
pub const USER: &str = "fleet";
pub const PASSWORD: &str = "secret";

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    fn start(mut command: Command, port: u16, lab: Option<Lab>, data: Option<tempfile::TempDir>) -> Self {
        let log = fs::File::create(std::env::temp_dir().join(format!("dkms-lab-server-{port}"))).unwrap();
        let name = log.path().to_owned();
        let log = log.into_parts().0;
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Self { child: command.spawn().unwrap(), port, lab, _data: data };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = server.child.try_wait().unwrap();
            let said = || fs::read_to_string(&name).unwrap();
            assert!(ended.is_none(), "the server has ended: {}", said());
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::remove_file(name).unwrap();
        server
    }

    fn in_lab(lab: Lab, program: &[&str], port: u16) -> Self {
        let mut command = Command::new(lab.dir.join("enter"));
        command.args(program);
        Self::start(command, port, Some(lab), None)
    }

    /// nginx with a directory that one can write to. With TLS it asks for a name and a password, and
    /// its certificate is of an authority of its own.
    pub fn nginx(tls: bool) -> Self {
        let lab = Lab::without_dkms().packages_and_dependencies(&["nginx-light"]);
        let port = free_port();
        let listen = if tls {
            lab.write("tls/names", "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n");
            lab.sh(
                "cd /tls; new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$1 \
                 -keyout $1.key \"${@:2}\"; }; new authority -x509 -days 2 -out authority; \
                 new server -out request; openssl x509 -req -in request -CA authority -CAkey authority.key \
                 -CAcreateserial -days 2 -extfile names -out certificate",
            )
            .succeeds();
            lab.write("tls/users", &format!("{USER}:{{PLAIN}}{PASSWORD}\n"));
            "ssl; ssl_certificate /tls/certificate; ssl_certificate_key /tls/server.key; \
             auth_basic lab; auth_basic_user_file /tls/users"
        } else {
            ""
        };
        lab.write(
            "etc/nginx/lab.conf",
            &format!(
                "user root; daemon off; pid /tmp/nginx.pid; worker_processes 1;\nevents {{}}\nhttp {{\n\
                 access_log off; client_max_body_size 64m; client_body_temp_path /tmp;\n\
                 server {{ listen 127.0.0.1:{port} {listen}; root /srv/www; dav_methods PUT; create_full_put_path on; }}\n}}\n"
            ),
        );
        fs::create_dir_all(lab.path("srv/www")).unwrap();
        Self::in_lab(lab, &["nginx", "-e", "stderr", "-c", "/etc/nginx/lab.conf"], port)
    }

    /// The registry of the distribution project; with a password for everything if so wished.
    pub fn registry(password: bool) -> Self {
        let lab = Lab::without_dkms().packages_and_dependencies(&["docker-registry"]);
        let port = free_port();
        let auth = if password { "auth:\n  htpasswd: {realm: lab, path: /users}\n" } else { "" };
        // bcrypt of PASSWORD, which is the only form that it knows.
        lab.write("users", &format!("{USER}:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"));
        lab.write(
            "registry.yml",
            &format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: /srv/registry}}}}\n\
                 http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
            ),
        );
        Self::in_lab(lab, &["docker-registry", "serve", "/registry.yml"], port)
    }

    /// An S3 server that checks signatures, with the bucket `modules`, [`USER`]'s key and
    /// [`PASSWORD`] for its secret. Debian has none: it is compiled once (two minutes).
    pub fn s3() -> Self {
        let program = PathBuf::from(lab_sh("cargo_program", &["s3s-fs", "0.13.0", "binary"]).trim());
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("modules")).unwrap();
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--access-key", USER, "--secret-key", PASSWORD]).arg(data.path());
        Self::start(command, port, None, Some(data))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        // nginx ends its workers when it is asked to, and not when it is killed.
        let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
