//! `codegen`: Rust code from `crates/proto/definitions`, without protoc.
//!
//! The generated files are checked in, so that building Quorate needs neither this tool nor its
//! dependencies. `--check` generates anew and fails when a checked-in file differs.
//!
//! The encoded descriptors are those of the definitions as written. The code is generated from a
//! copy that is changed in two ways, neither of which the wire can see; see [`prepare`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::workspace;

const DEFINITIONS: &str = "crates/proto/definitions";
const GENERATED: &str = "crates/proto/src/generated";
const DESCRIPTORS: &str = "descriptors.bin";

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Writes the generated files, and removes those whose definition is gone.
pub(crate) fn write() -> Result<()> {
    let root = workspace::root();
    let directory = root.join(GENERATED);
    fs::create_dir_all(&directory)?;
    let fresh = generate(&root)?;
    for name in read(&directory)?.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(directory.join(name))?;
    }
    for (name, content) in &fresh {
        fs::write(directory.join(name), content).with_context(|| format!("writing {name}"))?;
    }
    workspace::say(&format!("{} files written to {GENERATED}", fresh.len()));
    Ok(())
}

/// Fails when the checked-in files are not what the definitions give.
pub(crate) fn check() -> Result<()> {
    let root = workspace::root();
    let fresh = generate(&root)?;
    let kept = read(&root.join(GENERATED))?;
    let names: Vec<&str> = fresh
        .keys()
        .chain(kept.keys().filter(|name| !fresh.contains_key(*name)))
        .filter(|name| fresh.get(*name) != kept.get(*name))
        .map(String::as_str)
        .collect();
    if !names.is_empty() {
        bail!("stale in {GENERATED}: {}; run `cargo xtask codegen`", names.join(", "));
    }
    Ok(())
}

fn generate(root: &Path) -> Result<Files> {
    let definitions = root.join(DEFINITIONS);
    let mut descriptors = compile(&definitions)?;

    // The generator writes into a directory; a fresh one, so that nothing old is picked up.
    let scratch = root.join("target/codegen");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    let mut code = descriptors.clone();
    code.file.iter_mut().for_each(prepare);
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .out_dir(&scratch)
        .compile_fds_with_config(code, config)
        .context("generating code")?;
    let mut files = read(&scratch)?;

    // Comments are for the code; the program needs names, numbers and types.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    files.insert(DESCRIPTORS.to_owned(), descriptors.encode_to_vec());
    Ok(files)
}

/// Parses and links all definitions, in the order of their names.
fn compile(definitions: &Path) -> Result<FileDescriptorSet> {
    let mut sources: Vec<PathBuf> = fs::read_dir(definitions)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    sources.sort();
    let mut compiler = protox::Compiler::new([definitions])?;
    compiler.include_source_info(true).open_files(sources).context("compiling definitions")?;
    Ok(compiler.file_descriptor_set())
}

/// Changes a definition to what the code generator should see.
///
/// * In the log's files, fields that are not `required` become plain ones that are left out when
///   empty, instead of an `Option`: absent and empty mean the same there. `required` stays:
///   such a field is written even when zero, and plain too.
/// * `peerURLs` would become `peer_ur_ls`.
fn prepare(file: &mut FileDescriptorProto) {
    if matches!(file.package(), "raftpb" | "walpb" | "snappb") {
        file.syntax = Some("proto3".to_owned());
    }
    for field in file.message_type.iter_mut().flat_map(|message| &mut message.field) {
        if let Some(stem) = field.name().strip_suffix("URLs") {
            field.name = Some(format!("{stem}_urls"));
        }
    }
}

fn read(directory: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?
    {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(files)
}
