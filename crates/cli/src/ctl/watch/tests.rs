//! How arguments, lines and environment say what is to be watched.

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn wish(line: &str, defaults: &Defaults) -> Result<(String, String, i64, String), String> {
    let flags: Vec<&Flag> = FLAGS.iter().collect();
    let parsed = parse(&flags, &words(line)).unwrap().unwrap();
    let wish = Wish::new(&parsed.values, &parsed.arguments, parsed.before_separator, defaults)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let command: Vec<_> = wish.command.iter().map(|word| word.to_string_lossy()).collect();
    let request = wish.request;
    Ok((text(&request.key), text(&request.range_end), request.start_revision, command.join(" ")))
}

#[track_caller]
fn check(line: &str, defaults: &Defaults, expected: (&str, &str, i64, &str)) {
    let (key, end, revision, command) = wish(line, defaults).unwrap();
    assert_eq!((&*key, &*end, revision, &*command), expected, "{line}");
}

fn defaults(key: &str, end: &str) -> Defaults {
    let word = |word: &str| Some(word).filter(|word| !word.is_empty()).map(OsString::from);
    Defaults { key: word(key), range_end: word(end) }
}

#[test]
fn arguments_options_and_a_command_mix() {
    let none = Defaults::default();
    check("foo", &none, ("foo", "", 0, ""));
    check("foo bar --rev 1", &none, ("foo", "bar", 1, ""));
    check(
        "foo --rev 1 bar -- echo watch -- event",
        &none,
        ("foo", "bar", 1, "echo watch -- event"),
    );
    check("--prefix foo", &none, ("foo", "fop", 0, ""));
    check("foo bar baz", &none, ("foo", "", 0, ""));
}

#[test]
fn the_environment_stands_in_for_arguments() {
    check("", &defaults("foo", ""), ("foo", "", 0, ""));
    check("--rev 3 -- echo hi", &defaults("foo", "bar"), ("foo", "bar", 3, "echo hi"));
    assert_eq!(wish("foo", &defaults("foo", "")).unwrap_err(), CONFLICT);
    assert_eq!(wish("foo -- echo 1", &defaults("foo", "")).unwrap_err(), CONFLICT);
}

#[test]
fn what_is_missing_or_too_much_is_told() {
    let none = Defaults::default();
    assert_eq!(wish("", &none).unwrap_err(), WRONG_NUMBER);
    assert_eq!(wish("-- echo", &none).unwrap_err(), WRONG_NUMBER);
    assert_eq!(wish("foo --", &none).unwrap_err(), NO_COMMAND);
    assert_eq!(wish("foo bar --prefix", &none).unwrap_err(), EXCLUSIVE);
}

#[test]
fn lines_of_an_interactive_watch() {
    let none = Defaults::default();
    assert_eq!(Line::read("progress", &none).unwrap(), Line::Progress);
    let Line::Watch(wish) = Line::read("watch 'a b' --prev-kv -- echo \"x y\"", &none).unwrap()
    else {
        panic!("a watch is a watch");
    };
    assert_eq!(wish.request.key, "a b");
    assert!(wish.request.prev_kv);
    assert_eq!(
        wish.command,
        words("echo x_y")
            .iter()
            .map(|word| { OsString::from(word.to_string_lossy().replace('_', " ")) })
            .collect::<Vec<_>>()
    );
    let wrong = |line: &str| match Line::read(line, &none).unwrap() {
        Line::Wrong(text) => text,
        other => panic!("{line} is {other:?}"),
    };
    assert_eq!(wrong(""), "Invalid command:  (watch and progress supported)\n");
    assert_eq!(wrong("watch"), "Invalid command watch (command type or key is not provided)\n");
    assert_eq!(wrong("get a"), "Invalid command get a (only support watch)\n");
    assert_eq!(
        wrong("watch a b --prefix"),
        "Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually exclusive)\n"
    );
    assert!(Line::read("watch a --", &none).is_err());
    assert!(Line::read("watch --bogus a", &none).is_err());
}
