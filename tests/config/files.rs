//! The configuration files of this repository.

use std::path::{Path, PathBuf};

use config::{File, FileFormat, Source, Value, ValueKind};
use gradmesh::config::{Config, Key, Role};

use crate::support::{parse, toml};

fn in_repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn load_from_repository(file: &str) -> Config {
    let loaded = Config::load(&in_repository(file), &[], std::iter::empty());
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn paths_are_relative_to_the_folder_of_the_file() {
    let config = load_from_repository("examples/digits.toml");
    assert_eq!(
        config.path(&config.job.data.train),
        in_repository("examples/../data/digits/digits.csv.gz")
    );
    assert_eq!(config.path("/absolute"), Path::new("/absolute"));
}

#[test]
fn cluster_toml_is_the_fashion_job_with_all_other_values_at_their_defaults() {
    let config = load_from_repository("cluster.toml");
    let least = parse(&toml(&[])).unwrap();
    assert_eq!(config.job.model.name, "fashion");
    assert_eq!(config.job.data.train, "data/fashion/train-images-idx3-ubyte.gz");
    let mut expected = least.clone();
    expected.folder.clone_from(&config.folder);
    expected.job.data = config.job.data.clone();
    expected.job.model.name.clone_from(&config.job.model.name);
    assert_eq!(config, expected);
}

#[test]
fn cluster_toml_holds_every_key_with_its_meaning_and_range() {
    let text = std::fs::read_to_string(in_repository("cluster.toml")).unwrap();
    let root = File::from_str(&text, FileFormat::Toml).collect().unwrap();
    let root = Value::new(None, root);
    let has = |key: &Key| {
        let found = key.path.split('.').try_fold(&root, |value, name| match &value.kind {
            ValueKind::Table(table) => table.get(name),
            _ => None,
        });
        found.is_some()
    };
    for key in Config::keys().filter(|key| !key.path.starts_with("nodes.")) {
        assert!(has(key), "{} is not in cluster.toml", key.path);
        let name = key.path.rsplit('.').next().unwrap();
        let comment = format!("# {} ({})\n{name} = ", key.doc, key.kind);
        assert!(text.contains(&comment), "cluster.toml does not say:\n{comment}");
    }
}

#[test]
fn three_nodes_train_the_job_of_cluster_toml() {
    let mut config = load_from_repository("examples/three-nodes.toml");
    let names: Vec<_> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["main", "ps-0", "ps-1", "worker-0", "worker-1"]);
    assert_eq!(config.nodes[0].roles, [Role::Coordinator, Role::Registry, Role::Service]);
    assert_eq!(config.nodes[1].roles, [Role::Server, Role::Registry, Role::Service]);
    let listens = config.nodes.iter().map(|node| node.listens_on(config.service.listen).port());
    assert_eq!(listens.take(2).collect::<Vec<_>>(), [8080, 8081]);
    assert_eq!(config.servers.shards, 2);
    let data = &mut config.job.data;
    for path in [
        Some(&mut data.train),
        data.train_labels.as_mut(),
        data.test.as_mut(),
        data.test_labels.as_mut(),
    ] {
        let path = path.expect("all four files");
        *path = path.strip_prefix("../").expect("examples/ is below the data").to_owned();
    }
    assert_eq!(config.job, load_from_repository("cluster.toml").job);
}
