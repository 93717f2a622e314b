use super::*;

fn put(key: &'static str, lease: i64) -> pb::InternalRaftRequest {
    let put = pb::PutRequest { key: key.into(), value: "v".into(), lease, ..Default::default() };
    pb::InternalRaftRequest { put: Some(put), ..Default::default() }
}

#[test]
fn versions_and_revisions_count_as_in_etcd() {
    let mut model = Model::new(Group::default(), 2);
    assert_eq!(model.apply(&put("a", 0)).revision, 2);
    assert_eq!(model.apply(&put("a", 0)).revision, 3);
    let kv = &model.state(3)[&b"a"[..]];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    let refused = model.apply(&put("a", 7));
    assert_eq!((refused.revision, refused.result), (3, Err(Refusal::LeaseNotFound)));
    assert_eq!(model.stand_at(1).unwrap().revision, 2);
    assert_eq!(model.applied(), 3);
}

#[test]
fn a_revoked_lease_takes_its_keys_along_in_one_revision() {
    let mut model = Model::new(Group::default(), 2);
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 1 };
    let granted =
        model.apply(&pb::InternalRaftRequest { lease_grant: Some(grant), ..Default::default() });
    assert_eq!(granted.result, Ok(Reply::Grant(7, 2)));
    model.apply(&put("b", 7));
    model.apply(&put("a", 7));
    model.apply(&put("c", 7));
    model.apply(&put("c", 0));
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    let revoked =
        model.apply(&pb::InternalRaftRequest { lease_revoke: Some(revoke), ..Default::default() });
    assert_eq!(revoked.revision, 6);
    let gone: Vec<_> =
        model.changes_from(6).iter().map(|change| (change.sub, &change.kv.key[..])).collect();
    assert_eq!(gone, [(0, &b"a"[..]), (1, &b"b"[..])]);
    assert_eq!(model.state(6).len(), 1);
}
