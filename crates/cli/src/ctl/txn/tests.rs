//! Comparisons, operations and blocks of a transaction.

use super::*;

fn error(failure: Failure) -> (u8, String) {
    (failure.code, failure.message.unwrap_or_default())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn targets_and_operators_of_comparisons() {
    let cases = [
        (r#"mod("k") > "0""#, CompareTarget::Mod, CompareResult::Greater),
        (r#"m("k") = "1""#, CompareTarget::Mod, CompareResult::Equal),
        (r#"c("k") != "1""#, CompareTarget::Create, CompareResult::NotEqual),
        (r#"create("k") < "1""#, CompareTarget::Create, CompareResult::Less),
        (r#"ver("k")   =   "1""#, CompareTarget::Version, CompareResult::Equal),
        (r#"version("k") = "1""#, CompareTarget::Version, CompareResult::Equal),
        (r#"lease("k") = "7""#, CompareTarget::Lease, CompareResult::Equal),
        (r#"value("k") = "x" # more"#, CompareTarget::Value, CompareResult::Equal),
    ];
    for (line, target, result) in cases {
        let compare = comparison(line).unwrap();
        assert_eq!((compare.target(), compare.result()), (target, result), "{line}");
        assert_eq!(compare.key, "k", "{line}");
    }
    let compare = comparison(r#"val("a\"b") = "c\nd""#).unwrap();
    assert_eq!(compare.key, "a\"b");
    assert_eq!(compare.target_union, Some(TargetUnion::Value(Bytes::from_static(b"c\nd"))));
}

#[test]
fn mistakes_in_comparisons_are_told_in_the_words_of_etcdctl() {
    let cases = [
        ("foo", "malformed comparison: foo"),
        (r#"mod("k")>"0""#, r#"malformed comparison: mod("k")>"0"; got mod("k")  """#),
        (r#"mod(k) > "0""#, r#"malformed comparison: mod(k) > "0"; got mod("")  """#),
        (r#"mod("k") > 0"#, r#"malformed comparison: mod("k") > 0; got mod("k") > """#),
        (r#"mod("k") > "x""#, r#"invalid txn compare request: mod("k") > "x""#),
        (r#"size("k") > "1""#, r#"malformed comparison: size("k") > "1" (unknown target size)"#),
    ];
    for (line, text) in cases {
        assert_eq!(error(comparison(line).unwrap_err()), (INVALID_INPUT, text.to_owned()));
    }
}

#[test]
fn operations_have_the_options_of_their_commands() {
    let Operation::RequestRange(get) = wait(operation("get a --prefix --limit 3")).unwrap() else {
        panic!("get is a range");
    };
    assert_eq!((get.key, get.range_end, get.limit), ("a".into(), "b".into(), 3));
    let Operation::RequestPut(put) = wait(operation(r#"put a "b c" --lease=1f"#)).unwrap() else {
        panic!("put is a put");
    };
    assert_eq!((put.key, put.value, put.lease), ("a".into(), "b c".into(), 0x1f));
    let Operation::RequestDeleteRange(del) = wait(operation("del '' --from-key")).unwrap() else {
        panic!("del is a delete");
    };
    assert_eq!((del.key, del.range_end), ("\0".into(), "\0".into()));
}

#[test]
fn mistakes_in_operations_are_invalid_input() {
    let code = |line: &str| error(wait(operation(line)).unwrap_err());
    assert_eq!(code("get"), (INVALID_INPUT, "invalid txn compare request: get".to_owned()));
    assert_eq!(code("move a b"), (INVALID_INPUT, "invalid txn request: move a b".to_owned()));
    let bad = (INVALID_INPUT, "invalid txn request: get a --bogus".to_owned());
    assert_eq!(code("get a --bogus"), bad);
}

#[test]
fn a_transaction_has_three_blocks() {
    let mut input = "mod(\"k\") > \"0\"\n\nput k 1\nget k\n\n  \n".as_bytes();
    let request = wait(read(&mut input, false)).unwrap();
    let sizes = (request.compare.len(), request.success.len(), request.failure.len());
    assert_eq!(sizes, (1, 2, 0));
    let mut unfinished = "\n\nput k 1".as_bytes();
    let failure = wait(read(&mut unfinished, false)).unwrap_err();
    assert_eq!(error(failure), (INVALID_INPUT, "EOF".to_owned()));
}
