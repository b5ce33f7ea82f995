//! `hubctl doctor`, and what it looks for.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;

use super::running::{Running, loopback};
use super::{HUBCTL, HUBD, Hub, Said, path};

const KEYS: [&str; 3] = ["hub-signing.key", "hub-tls.key", "hub-vault.key"];

/// How each thing stands, by its name.
fn standing(said: &Said, check: &str) -> Vec<String> {
    let report = said.json();
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .filter(|finding| finding["check"] == check)
        .map(|finding| finding["standing"].as_str().unwrap().to_owned())
        .collect()
}

fn open_up(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_new_hub_is_healthy_and_the_doctor_says_what_to_look_at() {
    let hub = Hub::init(&[]);
    let said = hub.hubctl(&["doctor", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["healthy"], true);
    assert_eq!(standing(&said, "key files"), ["good"]);
    assert_eq!(
        standing(&said, "keys at rest"),
        ["warning"],
        "in clear on the disk"
    );
    assert_eq!(standing(&said, "policy"), ["good"]);
    assert_eq!(standing(&said, "hub"), ["warning"], "it does not run");
    let text = hub.hubctl(&["doctor"]);
    assert!(text.stdout.contains("in clear on the disk"), "{text:?}");
}

#[test]
fn doctor_warns_of_a_next_signing_key_that_is_not_in_use() {
    const CHECK: &str = "next signing key";
    let hub = Hub::init(&[]);
    assert!(standing(&hub.hubctl(&["doctor", "--json"]), CHECK).is_empty());
    let keys = hub.file("keys");
    fs::copy(keys.join("hub-vault.key"), keys.join("hub-signing.next.key")).unwrap();
    assert_eq!(standing(&hub.hubctl(&["doctor", "--json"]), CHECK), ["warning"]);
}

#[test]
fn doctor_warns_of_a_next_vault_key_that_is_not_in_use() {
    const CHECK: &str = "next vault key";
    let hub = Hub::init(&[]);
    assert!(standing(&hub.hubctl(&["doctor", "--json"]), CHECK).is_empty());
    let keys = hub.file("keys");
    fs::copy(keys.join("hub-signing.key"), keys.join("hub-vault.next.key")).unwrap();
    assert_eq!(standing(&hub.hubctl(&["doctor", "--json"]), CHECK), ["warning"]);
}

#[test]
fn doctor_warns_of_a_policy_key_beside_the_hub_that_obeys_it() {
    const CHECK: &str = "policy key";
    let hub = Hub::init(&[]);
    let looked = || hub.hubctl(&["doctor", "--json"]);
    assert_eq!(standing(&looked(), CHECK), ["warning"]);
    let key = hub.file("keys/policy-local.key");
    let told = hub.hubctl(&["doctor"]).stdout;
    assert!(told.contains("shred -u"), "{told}");
    // Off the machine, and then there and obeyed no more.
    let away = hub.file("away.key");
    fs::rename(&key, &away).unwrap();
    assert!(standing(&looked(), CHECK).is_empty());
    fs::rename(&away, &key).unwrap();
    let other = hub.hubctl(&["--json", "keygen", path(&hub.file("other.key"))]);
    let trusted = format!("trusted_keys = [{}] #", other.json()["public_key"]);
    hub.edit("trusted_keys = ", &trusted);
    fs::remove_file(hub.file("policy.cose")).unwrap();
    let said = looked();
    assert!(standing(&said, CHECK).is_empty(), "{said:?}");
    assert_eq!(standing(&said, "policy"), ["warning"], "{said:?}");
}

#[test]
fn doctor_warns_of_a_next_tls_key_that_is_not_in_use() {
    const CHECK: &str = "next TLS key";
    let hub = loopback();
    let running = Running::start(&hub);
    let told = || standing(&hub.hubctl(&["doctor", "--json"]), CHECK);
    assert!(told().is_empty());
    let next = hub.file("keys").join("hub-tls.next.key");
    let made = hub.hubctl(&["keygen", "--tls", path(&next)]);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(told(), ["warning"]);
    let begun = hub.hubctl(&["keys", "rotate", "tls"]);
    assert_eq!(begun.code, 0, "{begun:?}");
    assert!(told().is_empty(), "it is in use");
    running.terminate();
}

#[test]
fn doctor_warns_of_a_store_that_no_recovery_key_opens() {
    const CHECK: &str = "recovery key";
    let hub = Hub::init(&[]);
    let stands = || standing(&hub.hubctl(&["doctor", "--json"]), CHECK);
    assert_eq!(stands(), ["warning"], "none is configured");
    let file = hub.file("recovery.key");
    let made = hub.hubctl(&["--json", "keygen", "--recovery", path(&file)]);
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let line = format!("[ledger]\nrecovery_key = {}\n", made.json()["public_key"]);
    let toml = fs::read_to_string(hub.file("hubd.toml")).unwrap();
    fs::write(hub.file("hubd.toml"), toml.replace("[ledger]\n", &line)).unwrap();
    assert_eq!(stands(), ["warning"], "no start has wrapped for it");
    Running::start(&hub).terminate();
    assert_eq!(stands(), ["good"]);
}

#[test]
fn a_key_open_to_others_keeps_hubd_from_starting_and_the_doctor_says_so() {
    let hub = Hub::init(&[]);
    for key in KEYS {
        let file = hub.file("keys").join(key);
        open_up(&file);
        let said = hub.hubd("run", &[]);
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.stderr.contains("is open to others (mode 0644)"), "{said:?}");
        assert!(said.stderr.contains("chmod 600"), "{said:?}");
        let said = hub.hubctl(&["doctor", "--json"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert_eq!(standing(&said, "key files"), ["bad"]);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn the_doctor_sees_a_store_of_a_newer_program_and_a_fault_of_the_configuration() {
    let hub = Hub::init(&[]);
    fs::write(hub.file("format"), "format = 99\n").unwrap();
    hub.edit("currency = ", "currncy = ");
    let said = hub.hubctl(&["doctor", "--json"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(standing(&said, "store"), ["bad"]);
    assert!(standing(&said, "configuration").iter().all(|it| it == "bad"));
}

#[test]
fn the_keys_are_taken_from_the_service_manager_first() {
    let hub = Hub::init(&[]);
    let credentials = hub.file("credentials");
    fs::create_dir(&credentials).unwrap();
    let validate = |credentials: &Path| -> Said {
        let mut command = Command::new(HUBD);
        command.args(["validate", "--json", "--dir", path(&hub.dir)]);
        command
            .env("CREDENTIALS_DIRECTORY", credentials)
            .output()
            .unwrap()
            .into()
    };
    // A folder without them: the files count.
    let before = validate(&credentials).json()["hub_id"].clone();
    assert!(before.is_string(), "{before}");
    for key in KEYS {
        fs::rename(hub.file("keys").join(key), credentials.join(key)).unwrap();
    }
    assert_eq!(validate(&credentials).json()["hub_id"], before);
    assert_eq!(
        hub.hubd("validate", &[]).code,
        78,
        "without them there are no keys"
    );
    // One that is there and no good is not passed over for the file.
    fs::copy(credentials.join(KEYS[1]), hub.file("keys").join(KEYS[1])).unwrap();
    fs::write(credentials.join(KEYS[1]), "no key").unwrap();
    assert_eq!(validate(&credentials).code, 78);
}

#[test]
fn a_running_hub_leaves_no_core() {
    let hub = loopback();
    let running = Running::start(&hub);
    let pid = running.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    let said = hub.hubctl(&["doctor", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(standing(&said, "core dumps"), ["good"]);
    assert_eq!(standing(&said, "hub").first().map(String::as_str), Some("good"));
    running.terminate();
}

/// Of a process that is not dumpable (`PR_SET_DUMPABLE`, prctl(2)) the kernel
/// gives what is in `/proc/PID` to root, and nobody else attaches to it.
#[test]
fn a_running_hub_is_not_dumpable() {
    let hub = loopback();
    let me = fs::metadata(&hub.dir).unwrap().uid();
    // Root's own processes tell nothing: the hub runs as somebody else then.
    let user = if me == 0 { 65_534 } else { me };
    let program = hub.file("program");
    // By a process of its own: a descriptor open for writing here would be
    // inherited by what another test starts meanwhile, and the kernel runs no
    // program that somebody holds open for writing (ETXTBSY, execve(2)).
    let copied = Command::new("cp").arg(HUBD).arg(&program).status().unwrap();
    assert!(copied.success());
    if me == 0 {
        give_to(hub.dir.parent().unwrap(), user);
    }
    let owner_of = |command: &mut Command, ready: &Path| {
        let mut child = command.uid(user).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..3_000 {
            if ready.exists() || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let owner = fs::metadata(format!("/proc/{}/environ", child.id())).map(|file| file.uid());
        child.kill().unwrap();
        child.wait().unwrap();
        owner.unwrap()
    };
    let running = owner_of(
        Command::new(&program).args(["run", "--dir", path(&hub.dir)]),
        &hub.file("hubd.sock"),
    );
    assert_eq!(running, 0, "somebody else can attach to the hub");
    let other = owner_of(Command::new("sleep").arg("60"), &hub.dir);
    assert_eq!(other, user, "of an ordinary process it shows");
}

/// Every program of ours has keys in its hands at some time: a person's who
/// signs at headquarters, those that are made, those of the hub.
#[test]
fn no_command_of_ours_leaves_a_core_or_is_dumpable() {
    let hub = Hub::init(&[]);
    let me = fs::metadata(&hub.dir).unwrap().uid();
    let user = if me == 0 { 65_534 } else { me };
    let root = hub.dir.parent().unwrap();
    let [hubd, hubctl] = [("hubd", HUBD), ("hubctl", HUBCTL)].map(|(name, from)| {
        let program = root.join(name);
        // By a process of its own, as above.
        let copied = Command::new("cp").arg(from).arg(&program).status().unwrap();
        assert!(copied.success());
        program
    });
    // What nobody writes to keeps its reader waiting.
    let waits = root.join("waits");
    let made = Command::new("mkfifo").arg(&waits).status().unwrap();
    assert!(made.success());
    fs::rename(hub.file("hubd.toml"), root.join("hubd.toml")).unwrap();
    fs::hard_link(&waits, hub.file("hubd.toml")).unwrap();
    if me == 0 {
        give_to(root, user);
    }
    let (dir, waits) = (path(&hub.dir), path(&waits));
    let (new, policy) = (root.join("new"), hub.file("policy.toml"));
    let cases: [(&Path, &[&str]); 4] = [
        (&hubd, &["validate", "--dir", dir]),
        (&hubd, &["init", "--dir", path(&new), "--policy", waits]),
        (
            &hubctl,
            &["policy", "sign", "--key", waits, path(&policy), "policy.cose"],
        ),
        (
            &hubctl,
            &[
                "--dir",
                dir,
                "ledger",
                "disclose",
                "--all",
                "--vault-key",
                waits,
                "keys.jsonl",
            ],
        ),
    ];
    for (program, args) in cases {
        let mut child = Command::new(program)
            .args(args)
            .uid(user)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let held = writer_once_read(waits, &mut child);
        let of = |what: &str| format!("/proc/{}/{what}", child.id());
        let limits = fs::read_to_string(of("limits")).unwrap();
        let owner = fs::metadata(of("environ")).unwrap().uid();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(held);
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let core: Vec<_> = core.unwrap().split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"], "{args:?}");
        assert_eq!(owner, 0, "somebody else can attach to {args:?}");
    }
}

/// Opens a named pipe for writing as soon as this program reads from it.
fn writer_once_read(pipe: &str, child: &mut std::process::Child) -> fs::File {
    for _ in 0..3_000 {
        let mut options = fs::OpenOptions::new();
        let nobody_reads_is_an_error = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let opened = options
            .write(true)
            .custom_flags(nobody_reads_is_an_error)
            .open(pipe);
        if let Ok(file) = opened {
            return file;
        }
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nobody reads {pipe}");
}

/// Gives a folder and all that is in it to a user.
fn give_to(dir: &Path, user: u32) {
    chown(dir, Some(user), None).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => give_to(&path, user),
            false => chown(&path, Some(user), None).unwrap(),
        }
    }
}
