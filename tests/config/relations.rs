//! Values against each other.

use crate::support::{NODE, parse, problem, toml, toml_of_node};

#[test]
fn dead_after_is_at_least_three_heartbeats() {
    let detector = |dead_after: &str| {
        toml(&[("detector.heartbeat_ms", "500"), ("detector.dead_after_ms", dead_after)])
    };
    assert_eq!(parse(&detector("1500")).err(), None);
    let problem = problem(&detector("1499"));
    assert_eq!(problem.key, "detector.dead_after_ms");
    assert!(problem.what_to_do.contains("1500"), "{problem}");
}

#[test]
fn checkpoints_and_versions_have_folders_of_their_own() {
    let stores = |checkpoints: &str, registry: &str| {
        let quoted = [checkpoints, registry].map(|path| format!("'{path}'"));
        toml(&[("checkpoint.store", &quoted[0]), ("registry.store", &quoted[1])])
    };
    assert_eq!(parse(&stores("data/a", "data/b")).err(), None);
    for (checkpoints, registry) in
        [("data", "data"), ("data", "./data/"), ("/data//a", "file:///data/a")]
    {
        let problem = problem(&stores(checkpoints, registry));
        assert_eq!(problem.key, "registry.store");
        assert!(problem.problem.contains("checkpoint.store"), "{problem}");
    }
}

#[test]
fn coordination_has_a_folder_of_its_own() {
    for other in ["checkpoint.store", "registry.store"] {
        let problem = problem(&toml(&[("coordination.store", "'data'"), (other, "'./data'")]));
        assert_eq!(problem.key, "coordination.store");
        assert_eq!(problem.problem, format!("the same folder as {other}"));
    }
}

#[test]
fn etcd_is_written_as_a_url_and_needs_its_feature() {
    let broken = problem(&toml(&[("coordination.store", "'etcd://host/prefix'")]));
    assert_eq!(broken.key, "coordination.store");
    assert!(broken.what_to_do.contains("etcd://host:2379,host:2379/prefix"), "{broken}");
    let whole = toml(&[("coordination.store", "'etcd://host:2379/prefix'")]);
    if cfg!(feature = "etcd") {
        assert_eq!(parse(&whole).err(), None);
    } else {
        let problem = problem(&whole);
        assert!(problem.what_to_do.contains("cargo's feature etcd"), "{problem}");
    }
}

#[test]
fn labels_go_with_idx_and_with_its_rows() {
    let idx = [("job.data.format", "'idx'"), ("job.data.train_labels", "'labels'")];
    assert_eq!(parse(&toml(&idx)).err(), None);
    for (changes, key) in [
        (&idx[..1], "job.data.train_labels"),
        (&[("job.data.train_labels", "'labels'")], "job.data.train_labels"),
        (&[idx[0], idx[1], ("job.data.test", "'test'")], "job.data.test_labels"),
        (&[idx[0], idx[1], ("job.data.test_labels", "'labels'")], "job.data.test_labels"),
        (&[("job.data.test_labels", "'labels'")], "job.data.test_labels"),
        // A value of the wrong type is not also reported as missing.
        (&[idx[0], ("job.data.train_labels", "1")], "job.data.train_labels"),
        (&[idx[0], idx[1], ("job.data.train", "1")], "job.data.train"),
        (
            &[idx[0], idx[1], ("job.data.test", "1"), ("job.data.test_labels", "'labels'")],
            "job.data.test",
        ),
    ] {
        assert_eq!(problem(&toml(changes)).key, key, "{changes:?}");
    }
}

#[test]
fn labels_file_beside_a_csv_file_leads_to_the_target_column() {
    for labels in ["job.data.train_labels", "job.data.test_labels"] {
        let problem = problem(&toml(&[(labels, "'labels'")]));
        assert!(problem.problem.ends_with("job.data.target"), "{problem}");
    }
}

#[test]
fn every_needed_role_that_no_node_has_is_named() {
    for (roles, missing) in [
        ("['server', 'worker', 'registry']", "coordinator"),
        ("['coordinator', 'worker', 'registry']", "server"),
        ("['coordinator', 'server', 'registry']", "worker"),
        ("['coordinator', 'server', 'worker', 'service']", "registry"),
    ] {
        let problem = problem(&toml_of_node(("nodes.roles", roles)));
        assert_eq!(problem.problem, format!("no node has the role {missing}"));
    }
}

#[test]
fn nodes_share_no_name_and_no_address_but_any_role() {
    let two = |name: &str, address: &str, roles: &str| {
        let one = "name = 'a', address = '127.0.0.1:1', roles = ['coordinator', 'server', \
                   'worker', 'registry']";
        let other =
            format!("name = '{name}', address = '127.0.0.1:{address}', roles = ['{roles}']");
        toml(&[("nodes", &format!("[{{ {one} }}, {{ {other} }}]"))])
    };
    assert_eq!(parse(&two("b", "2", "worker")).err(), None);
    assert_eq!(problem(&two("a", "2", "worker")).key, "nodes[1].name");
    assert_eq!(problem(&two("b", "1", "worker")).key, "nodes[1].address");
    assert_eq!(parse(&two("b", "2", "coordinator")).err(), None);
}

/// Two nodes that serve, on `addresses`, each with more of its own.
fn two_services(addresses: [&str; 2], more: [&str; 2]) -> String {
    let node = |name: &str, roles: &str, at: usize| {
        let (address, more) = (addresses[at], more[at]);
        format!("{{ name = '{name}', address = '{address}', roles = [{roles}] {more} }}")
    };
    let all = "'coordinator', 'server', 'worker', 'registry', 'service'";
    let (a, b) = (node("a", all, 0), node("b", "'registry', 'service'", 1));
    toml(&[("nodes", &format!("[{a}, {b}]")), ("service.listen", "'127.0.0.1:8080'")])
}

#[test]
fn any_number_of_nodes_may_have_registry_and_service() {
    let machines = two_services(["10.0.0.1:7100", "10.0.0.2:7100"], ["", ""]);
    assert_eq!(parse(&machines).err(), None);
    let apart = two_services(["127.0.0.1:1", "127.0.0.1:2"], ["", ", listen = '127.0.0.1:8081'"]);
    let config = parse(&apart).unwrap();
    let listens = config.nodes.iter().map(|node| node.listens_on(config.service.listen).port());
    assert_eq!(listens.collect::<Vec<_>>(), [8080, 8081]);
}

#[test]
fn services_of_one_machine_listen_on_addresses_of_their_own() {
    let here = ["127.0.0.1:1", "127.0.0.1:8081"];
    let missing = problem(&two_services(here, ["", ""]));
    assert_eq!(missing.key, "nodes[1].listen");
    let expected = "is missing, and on service.listen (127.0.0.1:8080) nodes[0] answers HTTP there";
    assert_eq!(missing.problem, expected);
    for (listen, expected) in [
        ("127.0.0.1:8080", "nodes[0] answers HTTP there"),
        ("0.0.0.0:8080", "nodes[0] answers HTTP there"),
        ("0.0.0.0:8081", "nodes[1].address is the same"),
        ("127.0.0.1:1", "nodes[0].address is the same"),
    ] {
        let listen = format!(", listen = '{listen}'");
        let found = problem(&two_services(here, ["", &listen]));
        assert_eq!(found.problem, expected);
        assert_eq!(found.what_to_do, "set nodes[1].listen to an address of its own");
    }
    // Port 0 is one of its own.
    let free = two_services(here, ["", ", listen = '127.0.0.1:0'"]);
    assert_eq!(parse(&free).err(), None);
}

#[test]
fn a_node_that_serves_nothing_has_no_place_to_listen() {
    let problem = problem(&toml_of_node(("nodes.listen", "'127.0.0.1:80'")));
    assert_eq!(problem.problem, "this node has not the role service");
}

#[test]
fn grpc_has_addresses_of_its_own() {
    let here = ["127.0.0.1:1", "127.0.0.1:2"];
    let http = ", listen = '127.0.0.1:8081'";
    let own = |grpc: &str| format!("{http}, grpc_listen = '127.0.0.1:{grpc}'");
    let apart = parse(&two_services(here, ["", &own("8001")])).unwrap();
    let grpc = apart.nodes.iter().map(|node| node.grpc_listens_on(apart.service.grpc_listen));
    assert_eq!(grpc.collect::<Vec<_>>(), [None, Some("127.0.0.1:8001".parse().unwrap())]);
    for (port, expected) in [
        ("8080", "nodes[0] answers HTTP there"),
        ("8081", "nodes[1] answers HTTP there"),
        ("2", "nodes[1].address is the same"),
    ] {
        let found = problem(&two_services(here, ["", &own(port)]));
        assert_eq!(
            (found.key.as_str(), found.problem.as_str()),
            ("nodes[1].grpc_listen", expected)
        );
    }
    let both = two_services(here, ["", http]) + "\nservice.grpc_listen = '127.0.0.1:8001'";
    let found = problem(&both);
    let expected =
        "is missing, and on service.grpc_listen (127.0.0.1:8001) nodes[0] answers gRPC there";
    assert_eq!((found.key.as_str(), found.problem.as_str()), ("nodes[1].grpc_listen", expected));
}

#[test]
fn nodes_as_one_table_are_refused() {
    let problem = problem(&toml(&[("nodes.name", "'a'")]));
    assert_eq!(problem.what_to_do, "write each node as [[nodes]]");
}

#[test]
fn digest_is_that_of_what_all_nodes_agree_on() {
    let digest = |changes: &[(&str, &str)]| parse(&toml(changes)).unwrap().digest();
    let same = digest(&[]);
    for change in [
        ("service.listen", "'0.0.0.0:80'"),
        ("service.grpc_listen", "'0.0.0.0:80'"),
        ("checkpoint.store", "'elsewhere'"),
        ("checkpoint.keep", "9"),
        ("coordination.store", "'elsewhere'"),
        ("registry.store", "'elsewhere'"),
        ("detector.heartbeat_ms", "100"),
        ("supervisor.restarts_max", "1"),
        ("job.data.train", "'/mnt/elsewhere/rows.csv'"),
    ] {
        assert_eq!(digest(&[change]), same, "{change:?}");
    }
    let node = parse(&toml_of_node(NODE[0])).unwrap().digest();
    assert_ne!(node, same);
    for change in [
        ("cluster.name", "'other'"),
        ("job.seed", "2"),
        ("job.optimizer.learning_rate", "0.2"),
        ("job.model.settings", "{ a = 1 }"),
        ("servers.shards", "2"),
        ("workers.count", "3"),
        ("checkpoint.every_steps", "100"),
        ("coordination.lease_ms", "2000"),
    ] {
        assert_ne!(digest(&[change]), same, "{change:?}");
    }
}
