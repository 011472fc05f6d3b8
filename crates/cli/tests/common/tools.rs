//! What the tests with real clients need beyond Rust: Python packages, a browser and its driver. They are installed into
//! the build folder, once. Nothing is skipped silently: without a package registry a test fails and says so, and who
//! works without a network says `VELATURA_OFFLINE=1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

static INSTALLING: Mutex<()> = Mutex::new(());

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Whether someone said that there is no network; says so in the test's output.
pub fn offline() -> bool {
    let offline = std::env::var_os("VELATURA_OFFLINE").is_some();
    if offline {
        eprintln!(
            "NOT TESTED: VELATURA_OFFLINE is set, and this test installs the clients that it uses"
        );
    }
    offline
}

/// Runs a command that installs something.
fn install(what: &str, command: &mut Command) {
    eprintln!("installing {what}: {command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot install {what}: {command:?}: {error}"));
    assert!(
        output.status.success(),
        "cannot install {what}. Is the package registry reachable? VELATURA_OFFLINE=1 leaves these tests out.\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Whether `what` has been installed as `list` says.
fn is_current(folder: &Path, list: &str) -> bool {
    fs::read_to_string(folder.join("installed.txt")).is_ok_and(|installed| installed == list)
}

/// A Python with the packages of clients/requirements.txt.
pub fn python() -> PathBuf {
    let _guard = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let (venv, list) = (folder("python-clients"), clients().join("requirements.txt"));
    let python = venv.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    let wanted = fs::read_to_string(&list).unwrap();
    if !is_current(&venv, &wanted) {
        let system = if cfg!(windows) { "python" } else { "python3" };
        install(
            "a Python environment",
            Command::new(system).args(["-m", "venv"]).arg(&venv),
        );
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ];
        install(
            "the Python clients",
            Command::new(&python).args(pip).arg(&list),
        );
        fs::write(venv.join("installed.txt"), wanted).unwrap();
    }
    python
}

/// A folder with playwright-core in it, and a browser for it to drive.
pub fn browser() -> (PathBuf, PathBuf) {
    let _guard = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, list) = (folder("browser-driver"), clients().join("package.json"));
    let wanted = fs::read_to_string(&list).unwrap();
    if !is_current(&dir, &wanted) {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("package.json"), &wanted).unwrap();
        let npm = ["install", "--silent", "--no-audit", "--no-fund"];
        install(
            "playwright-core",
            Command::new("npm").args(npm).current_dir(&dir),
        );
        fs::write(dir.join("installed.txt"), wanted).unwrap();
    }
    let on_path = || {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths)
            .flat_map(|path| {
                ["chromium", "chromium-browser", "google-chrome"].map(|name| path.join(name))
            })
            .find(|file| file.is_file())
    };
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    if let Some(browser) = named.or_else(on_path) {
        return (dir, browser);
    }
    install(
        "Chromium's package list",
        Command::new("apt-get").args(["update", "-qq"]),
    );
    let apt = [
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "chromium",
    ];
    install(
        "Chromium (name another with CHROMIUM=path)",
        Command::new("apt-get").args(apt),
    );
    (dir, on_path().expect("apt-get has installed chromium"))
}

/// The path of a client's script.
pub fn script(name: &str) -> PathBuf {
    clients().join(name)
}

/// Where screenshots go.
pub fn screenshots() -> PathBuf {
    let dir = folder("screenshots");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs a client to its end.
pub fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{command:?}\n{text}");
    println!("{text}");
}
