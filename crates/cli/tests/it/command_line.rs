//! Command lines that need no server, run as processes; expectations are what etcdctl 3.7.1 says.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The example that is nothing but `ctl`, built along with this test.
fn ctl() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/ctl")
}

/// Exit code, standard output and standard error.
fn run(line: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(ctl())
        .args(line)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read leaves the pipe broken.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn fails(line: &[&str], code: i32, err: &str) {
    assert_eq!(run(line, ""), (Some(code), String::new(), format!("Error: {err}\n")), "{line:?}");
}

#[test]
fn arguments_that_make_no_sense() {
    fails(
        &["get"],
        128,
        "get command needs one argument as key and an optional argument as range_end",
    );
    let both = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
    fails(&["get", "a", "--prefix", "--from-key"], 128, both);
    fails(&["get", "a", "--consistency", "x"], 4, "unknown consistency flag \"x\"");
    fails(&["get", "a", "--order", "x"], 4, "bad sort order x");
    fails(&["put"], 128, "put command needs 1 argument and input from stdin or 2 arguments");
    fails(&["put", "a"], 128, "put command needs 1 argument and input from stdin or 2 arguments");
    fails(&["-w", "xx", "get", "a"], 4, "unsupported output format");
    fails(&["--cert", "", "get", "a"], 128, "empty string is passed to --cert option");
    fails(&["--cacert", "/nope", "get", "a"], 128, "open /nope: no such file or directory");
    fails(&["watch"], 128, "bad number of arguments");
    fails(
        &["lease", "grant", "x"],
        128,
        "bad TTL (strconv.ParseInt: parsing \"x\": invalid syntax)",
    );
    fails(&["elect", "a"], 128, "no proposal argument but -l not set");
    fails(
        &["--endpoints", "a,b", "snapshot", "save", "x"],
        5,
        "snapshot must be requested to one selected node, not multiple [a b]",
    );
    fails(&["check", "perf", "--load", "x"], 4, "unknown load option x");
}

#[test]
fn changes_of_membership_that_make_no_sense() {
    fails(&["member", "add"], 128, "member name not provided");
    fails(
        &["member", "add", "a", "HTTP://b:1", "c"],
        128,
        "too many arguments, did you mean --peer-urls=HTTP://b:1",
    );
    fails(&["member", "add", "a"], 128, "member peer urls not provided");
    fails(
        &["member", "add", "a", "--learner", "--peer-urls", "http://b:1,foo"],
        1,
        "URL scheme must be http, https, unix, or unixs: foo",
    );
    for command in ["remove", "update", "promote"] {
        fails(&["member", command], 128, "member ID is not provided");
        fails(&["member", command, "1", "2"], 128, "member ID is not provided");
        fails(
            &["member", command, "xyz"],
            128,
            "bad member ID arg (strconv.ParseUint: parsing \"xyz\": invalid syntax), \
             expecting ID in Hex",
        );
    }
    fails(&["member", "update", "1"], 128, "member peer urls not provided");
    fails(
        &["member", "update", "1", "--peer-urls", "http://b"],
        1,
        "URL address does not have the form \"host:port\": http://b",
    );
    fails(&["move-leader"], 128, "move-leader command needs 1 argument");
    fails(
        &["move-leader", "10000000000000000"],
        128,
        "strconv.ParseUint: parsing \"10000000000000000\": value out of range",
    );
}

#[test]
fn downgrades_that_make_no_sense() {
    for command in ["validate", "enable"] {
        fails(&["downgrade", command], 128, "TARGET_VERSION not provided");
        fails(&["downgrade", command, ""], 128, "target version not provided");
        fails(&["downgrade", command, "3.6", "3.5"], 128, "too many arguments");
    }
    let (code, out, err) = run(&["downgrade"], "");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "Downgrade related commands\n\nUsage:\n  etcdctl downgrade [command]\n\n\
         Available Commands:\n  cancel      Cancel the ongoing downgrade action to cluster\n  \
         enable      Start a downgrade action to cluster\n  \
         validate    Validate downgrade capability before starting downgrade\n\n\
         Flags:\n  -h, --help   help for downgrade\n\n\
         Use \"etcdctl downgrade [command] --help\" for more information about a command.\n\
         Use \"etcdctl options\" for a list of global command-line options (applies to all \
         commands).\n"
    );
    let (_, out, _) = run(&["downgrade", "enable", "--help"], "");
    assert_eq!(
        out,
        "Start a downgrade action to cluster\n\nUsage:\n  \
         etcdctl downgrade enable <TARGET_VERSION> [flags]\n\nFlags:\n  -h, --help   help for \
         enable\nUse \"etcdctl options\" for a list of global command-line options (applies to \
         all commands).\n"
    );
}

#[test]
fn unknown_commands_and_options() {
    fails(
        &["gte"],
        1,
        "unknown command \"gte\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\n\
         Run 'etcdctl --help' for usage.",
    );
    let (code, out, err) = run(&["compaction", "--bogus"], "");
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "Error: unknown flag: --bogus\nUsage:\n  etcdctl compaction [options] <revision> [flags]\n\n\
         Flags:\n  -h, --help       help for compaction\n      --physical   'true' to wait for \
         compaction to physically remove all old revisions\n\n"
    );
}

#[test]
fn commands_may_be_shortened_while_they_are_unambiguous() {
    let version = "etcdctl version: 3.7.1\nAPI version: 3.7\n".to_owned();
    assert_eq!(run(&["vers"], ""), (Some(0), version, String::new()));
    let (code, _, err) = run(&["e"], "");
    assert_eq!(code, Some(1));
    assert!(err.starts_with("Error: unknown command \"e\""), "{err}");
}

#[test]
fn transactions_are_understood_before_they_are_sent() {
    let txn = |input: &str| {
        let (code, _, err) = run(&["txn"], input);
        (code, err)
    };
    let failure = |text: &str| (Some(3), format!("Error: {text}\n"));
    assert_eq!(txn(""), failure("EOF"));
    assert_eq!(txn("foo\n\n"), failure("malformed comparison: foo"));
    assert_eq!(txn("\nmove a b\n"), failure("invalid txn request: move a b"));
}

#[test]
fn mirrors_need_one_destination_and_one_prefix() {
    fails(&["make-mirror"], 128, "make-mirror takes one destination argument");
    fails(&["make-mirror", "a", "b"], 128, "make-mirror takes one destination argument");
    fails(
        &["make-mirror", "a", "--dest-prefix=x", "--no-dest-prefix"],
        128,
        "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
    );
    for text in ["x", "-1", "+1", ""] {
        let (code, out, err) = run(&["make-mirror", "a", &format!("--max-txn-ops={text}")], "");
        assert_eq!((code, out.as_str()), (Some(1), ""));
        let begin = format!(
            "Error: invalid argument \"{text}\" for \"--max-txn-ops\" flag: strconv.ParseUint: \
             parsing \"{text}\": invalid syntax\nUsage:\n  etcdctl make-mirror [options] \
             <destination> [flags]\n"
        );
        assert!(err.starts_with(&begin), "{err}");
    }
    let (code, out, err) = run(&["make-mirror", "--help"], "");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "Makes a mirror at the destination etcd cluster\n\nUsage:\n  etcdctl make-mirror [options] \
         <destination> [flags]\n\nFlags:\n\
         \x20     --dest-cacert string        Verify certificates of TLS enabled secure servers using \
         this CA bundle\n\
         \x20     --dest-cert string          Identify secure client using this TLS certificate file \
         for the destination cluster\n\
         \x20     --dest-insecure-transport   Disable transport security for client connections \
         (default true)\n\
         \x20     --dest-key string           Identify secure client using this TLS key file\n\
         \x20     --dest-password string      Destination password for authentication (if this \
         option is used, --user option shouldn't include password)\n\
         \x20     --dest-prefix string        destination prefix to mirror a prefix to a different \
         prefix in the destination cluster\n\
         \x20     --dest-user string          Destination username[:password] for authentication \
         (prompt if password is not supplied)\n  \
         -h, --help                      help for make-mirror\n\
         \x20     --max-txn-ops uint          Maximum number of operations permitted in a \
         transaction during syncing updates. (default 128)\n\
         \x20     --no-dest-prefix            mirror key-values to the root of the destination \
         cluster\n\
         \x20     --prefix string             Key-value prefix to mirror\n\
         \x20     --rev int                   Specify the kv revision to start to mirror\n\
         Use \"etcdctl options\" for a list of global command-line options (applies to all \
         commands).\n"
    );
}

#[test]
fn help_goes_to_standard_output() {
    let (code, out, err) = run(&["endpoint", "hashkv", "--help"], "");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "Prints the KV history hash for each endpoint in --endpoints\n\nUsage:\n  \
         etcdctl endpoint hashkv [flags]\n\nFlags:\n  -h, --help      help for hashkv\n      \
         --rev int   maximum revision to hash (default: latest revision)\n\nGlobal Flags:\n      \
         --cluster   use all endpoints from the cluster member list\nUse \"etcdctl options\" for a \
         list of global command-line options (applies to all commands).\n"
    );
}

#[test]
fn help_tells_how_membership_is_changed() {
    let (code, out, err) = run(&["member", "add", "--help"], "");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "Adds a member into the cluster\n\nUsage:\n  etcdctl member add <memberName> [options] \
         [flags]\n\nFlags:\n  -h, --help               help for add\n      --learner            \
         indicates if the new member is raft learner\n      --peer-urls string   comma separated \
         peer URLs for the new member.\nUse \"etcdctl options\" for a list of global command-line \
         options (applies to all commands).\n"
    );
    let (_, out, _) = run(&["member"], "");
    assert!(
        out.contains(
            "  add         Adds a member into the cluster\n  \
             list        Lists all members in the cluster\n  \
             promote     Promotes a non-voting member in the cluster\n  \
             remove      Removes a member from the cluster\n  \
             update      Updates a member in the cluster\n"
        ),
        "{out}"
    );
}

#[test]
fn every_shell_has_its_completion() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let (code, out, _) = run(&["completion", shell], "");
        assert_eq!(code, Some(0), "{shell}");
        assert!(out.contains("keep-alive") && out.contains("print-value-only"), "{shell}");
    }
}
