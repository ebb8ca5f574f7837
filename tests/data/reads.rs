//! Rows that arrive as they are in their files, the vendored ones among them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gradmesh::data::open;
use gradmesh_actors::dataset::{Dataset, RowTargets, Rows, Scaling, Split};
use gradmesh_actors::job::{DataFormat, DataSpec, Loss, ScaleSpec};
use ndarray::{Axis, array};

use crate::support::{Folder, csv, gzip, idx, idx_u8, idx_with_test};

/// Training rows of each class as counted by another program; `data/README.md` has them too.
#[test]
fn the_fashion_slice_has_its_rows_and_classes() {
    let fashion = open_vendored(&fashion());
    let shape = fashion.shape();
    assert_eq!((shape.train_rows, shape.test_rows, shape.features), (12_000, 2_000, 784));
    assert_eq!((shape.classes, shape.target_width), (Some(10), 1));

    let counts = [1122, 1220, 1201, 1212, 1181, 1204, 1244, 1192, 1195, 1229];
    assert_eq!(class_counts(&fashion.load(Split::Train, 0..12_000).unwrap()), counts);
    let counts = [200, 203, 214, 190, 219, 195, 197, 200, 194, 188];
    assert_eq!(class_counts(&fashion.load(Split::Test, 0..2_000).unwrap()), counts);
}

#[test]
fn the_digits_have_their_rows_and_classes() {
    let digits = open_vendored(&digits(0.0));
    let shape = digits.shape();
    assert_eq!((shape.train_rows, shape.test_rows), (1_797, 0));
    assert_eq!((shape.features, shape.classes), (64, Some(10)));

    let rows = digits.load(Split::Train, 0..1_797).unwrap();
    let counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
    assert_eq!(class_counts(&rows), counts);
    // The first eight values of the file.
    let start = rows.inputs.row(0).iter().take(8).copied().collect::<Vec<_>>();
    assert_eq!(start, [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_range_of_rows_is_that_part_of_all_rows() {
    let folder = Folder::new();
    folder.write("plain", &idx_u8(&[50, 2], &(0..100).collect::<Vec<_>>()));
    folder.write("labels", &idx_u8(&[50], &(0..50).collect::<Vec<_>>()));
    let plain = open(&idx("plain", "labels"), Loss::Softmax, 1, folder.path()).unwrap();
    for dataset in [plain, open_vendored(&digits(0.3))] {
        for (split, rows) in
            [(Split::Train, dataset.shape().train_rows), (Split::Test, dataset.shape().test_rows)]
        {
            let all = dataset.load(split, 0..rows).unwrap();
            for range in [0..0, 0..rows.min(1), rows / 3..rows / 2, rows..rows] {
                let part = dataset.load(split, range.clone()).unwrap();
                assert_eq!(part, all.select(&range.collect::<Vec<_>>()));
            }
        }
    }
}

#[test]
fn rows_in_blocks_are_those_of_one_load() {
    let fashion = open_vendored(&fashion());
    for (range, least) in [(0..2_000, 3), (7..1_500, 3), (3..4, 1), (2_000..2_000, 1)] {
        let mut blocks = Vec::new();
        let mut each = |rows: Rows| blocks.push(rows);
        fashion.load_in_blocks(Split::Test, range.clone(), &mut each).unwrap();
        assert!(blocks.len() >= least, "{range:?}: {} blocks", blocks.len());
        let rows = fashion.load(Split::Test, range).unwrap();
        let views: Vec<_> = blocks.iter().map(|rows| rows.inputs.view()).collect();
        assert_eq!(ndarray::concatenate(Axis(0), &views).unwrap(), rows.inputs);
        let classes = blocks.iter().flat_map(|rows| match &rows.targets {
            RowTargets::Classes(classes) => classes.clone(),
            RowTargets::Values(_) => Vec::new(),
        });
        assert_eq!(RowTargets::Classes(classes.collect()), rows.targets);
    }
}

#[test]
fn a_split_keeps_each_row_once_in_file_order() {
    let folder = Folder::new();
    folder.write("rows.csv", numbered(100).as_bytes());
    let spec = DataSpec { test_fraction: 0.25, ..csv("rows.csv") };
    let dataset = open(&spec, Loss::Squared, 7, folder.path()).unwrap();
    let (train, test) = (inputs(&*dataset, Split::Train), inputs(&*dataset, Split::Test));

    assert_eq!((train.len(), test.len()), (75, 25));
    assert!(train.is_sorted() && test.is_sorted());
    let mut all = [train, test].concat();
    all.sort_by(f32::total_cmp);
    assert_eq!(all, (0..100).map(|row| row as f32).collect::<Vec<_>>());
}

#[test]
fn a_split_is_decided_by_the_seed() {
    let folder = Folder::new();
    folder.write("rows.csv", numbered(100).as_bytes());
    let spec = DataSpec { test_fraction: 0.25, ..csv("rows.csv") };
    let test_rows =
        |seed| inputs(&*open(&spec, Loss::Squared, seed, folder.path()).unwrap(), Split::Test);
    assert_eq!(test_rows(7), test_rows(7));
    assert_ne!(test_rows(7), test_rows(8));
}

#[test]
fn the_digest_changes_with_one_byte_of_any_file() {
    let folder = Folder::new();
    let digest = |changed: Option<&str>| {
        for (name, dimensions) in
            [("train", &[2, 2][..]), ("a", &[2]), ("test", &[2, 2]), ("b", &[2])]
        {
            let mut values = vec![0; dimensions.iter().product::<u32>() as usize];
            values[0] = 1;
            values[1] = u8::from(changed == Some(name));
            folder.write(name, &idx_u8(dimensions, &values));
        }
        let spec = idx_with_test("train", "a", "test", "b");
        open(&spec, Loss::Softmax, 1, folder.path()).unwrap().shape().digest.clone()
    };
    assert_eq!(digest(None).len(), 64);
    assert_eq!(digest(None), digest(None));
    let changed = ["train", "a", "test", "b"].map(|name| digest(Some(name)));
    assert!(!changed.contains(&digest(None)), "{changed:?}");
}

#[test]
fn gzip_is_recognised_by_its_content() {
    let folder = Folder::new();
    folder.write("packed.csv", &gzip(b"1,2\n3,4\n"));
    folder.write("plain.gz", b"1,2\n3,4\n");
    let load = |file| {
        let dataset = open(&csv(file), Loss::Squared, 1, folder.path()).unwrap();
        dataset.load(Split::Train, 0..2).unwrap()
    };
    assert_eq!(load("packed.csv"), load("plain.gz"));
}

#[test]
fn the_dimensions_of_a_picture_are_multiplied() {
    let folder = Folder::new();
    folder.write("pictures", &idx_u8(&[2, 1, 2, 3], &(0..12).collect::<Vec<_>>()));
    folder.write("labels", &idx_u8(&[2], &[4, 0]));
    let spec = DataSpec { scale: ScaleSpec::Divide, ..idx("pictures", "labels") };
    let spec = DataSpec { divide_by: 2.0, ..spec };
    let dataset = open(&spec, Loss::Softmax, 1, folder.path()).unwrap();

    assert_eq!((dataset.shape().features, dataset.shape().classes), (6, Some(5)));
    let rows = dataset.load(Split::Train, 1..2).unwrap();
    assert_eq!(rows.inputs, array![[3.0, 3.5, 4.0, 4.5, 5.0, 5.5]]);
    assert_eq!(rows.targets, RowTargets::Classes(vec![0]));
}

#[test]
fn idx_floats_are_big_endian() {
    let folder = Folder::new();
    let header = [&[0, 0, 0x0d, 2][..], &1_u32.to_be_bytes(), &2_u32.to_be_bytes()].concat();
    folder.write(
        "floats",
        &[&header[..], &1.5_f32.to_be_bytes(), &(-2.0_f32).to_be_bytes()].concat(),
    );
    folder.write("labels", &idx_u8(&[1], &[0]));
    let dataset = open(&idx("floats", "labels"), Loss::Squared, 1, folder.path()).unwrap();
    assert_eq!(dataset.load(Split::Train, 0..1).unwrap().inputs, array![[1.5, -2.0]]);
}

#[test]
fn a_target_column_is_found_by_name_and_by_number() {
    let folder = Folder::new();
    folder.write("named.csv", b"height,price,\"wide, in m\"\r\n 1 ,2,3\r\n\r\n4,5,\"6\"");
    for target in ["price", "1", "-2"] {
        let spec = DataSpec { header: true, target: target.to_owned(), ..csv("named.csv") };
        let dataset = open(&spec, Loss::Squared, 1, folder.path()).unwrap();
        assert_eq!((dataset.shape().classes, dataset.shape().target_width), (None, 1));
        let rows = dataset.load(Split::Train, 0..2).unwrap();
        assert_eq!(rows.inputs, array![[1.0, 3.0], [4.0, 6.0]]);
        assert_eq!(rows.targets, RowTargets::Values(array![[2.0], [5.0]]));
    }
}

#[test]
fn standard_scaling_measures_the_training_rows_only() {
    let folder = Folder::new();
    folder.write("train.csv", b"1,5,0\n3,5,1\n");
    folder.write("test.csv", b"1000,6,0\n");
    let spec = DataSpec {
        test: Some("test.csv".to_owned()),
        scale: ScaleSpec::Standard,
        ..csv("train.csv")
    };
    let dataset = open(&spec, Loss::Softmax, 1, folder.path()).unwrap();

    let expected = Scaling::Standard { mean: vec![2.0, 5.0], deviation: vec![1.0, 1.0] };
    assert_eq!(*dataset.scaling(), expected);
    let inputs = |split, rows| dataset.load(split, 0..rows).unwrap().inputs;
    assert_eq!(inputs(Split::Train, 2), array![[-1.0, 0.0], [1.0, 0.0]]);
    assert_eq!(inputs(Split::Test, 1), array![[998.0, 1.0]]);
}

#[test]
fn standard_scaling_leaves_out_held_out_rows() {
    let digits = open_vendored(&DataSpec { scale: ScaleSpec::Standard, ..digits(0.2) });
    let rows = digits.load(Split::Train, 0..digits.shape().train_rows).unwrap().inputs;
    for column in rows.axis_iter(Axis(1)) {
        let column = column.mapv(f64::from);
        let (mean, deviation) = (column.mean().unwrap(), column.std(0.0));
        assert!(mean.abs() < 1e-5 && (deviation == 0.0 || (deviation - 1.0).abs() < 1e-5));
    }
}

#[test]
fn a_range_beyond_the_split_is_refused() {
    let folder = Folder::new();
    folder.write("rows.csv", numbered(10).as_bytes());
    let dataset = open(&csv("rows.csv"), Loss::Squared, 1, folder.path()).unwrap();
    let refused = dataset.load(Split::Train, 5..11).unwrap_err();
    assert_eq!(refused.0, "rows 5..11 asked for, the training split has 10");
}

#[test]
fn a_file_that_changed_after_it_was_opened_is_refused() {
    let folder = Folder::new();
    folder.write("rows.csv", numbered(10).as_bytes());
    let dataset = open(&csv("rows.csv"), Loss::Squared, 1, folder.path()).unwrap();
    folder.write("rows.csv", numbered(11).as_bytes());
    let refused = dataset.load(Split::Train, 0..1).unwrap_err();
    assert!(refused.0.contains("rows.csv: changed since"), "{refused}");
}

#[test]
fn values_that_overflow_when_scaled_are_refused() {
    let folder = Folder::new();
    folder.write("rows.csv", b"1,0\n3e38,1\n");
    let spec = DataSpec { scale: ScaleSpec::Divide, divide_by: 0.5, ..csv("rows.csv") };
    let dataset = open(&spec, Loss::Softmax, 1, folder.path()).unwrap();
    let refused = dataset.load(Split::Train, 1..2).unwrap_err();
    assert!(refused.0.starts_with("row 1 of the training split"), "{refused}");
}

fn fashion() -> DataSpec {
    let file = |name: &str| format!("data/fashion/{name}-ubyte.gz");
    DataSpec {
        format: DataFormat::Idx,
        train_labels: Some(file("train-labels-idx1")),
        test: Some(file("t10k-images-idx3")),
        test_labels: Some(file("t10k-labels-idx1")),
        ..csv(&file("train-images-idx3"))
    }
}

fn digits(test_fraction: f64) -> DataSpec {
    DataSpec { test_fraction, ..csv("data/digits/digits.csv.gz") }
}

fn open_vendored(spec: &DataSpec) -> Arc<dyn Dataset> {
    open(spec, Loss::Softmax, 1, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn class_counts(rows: &Rows) -> Vec<usize> {
    let RowTargets::Classes(classes) = &rows.targets else { panic!("targets are classes") };
    let mut counts = BTreeMap::new();
    classes.iter().for_each(|class| *counts.entry(class).or_insert(0) += 1);
    counts.into_values().collect()
}

/// Rows `0,0`, `1,0`, ...: the input is the number of the row.
fn numbered(rows: usize) -> String {
    (0..rows).map(|row| format!("{row},0\n")).collect()
}

fn inputs(dataset: &dyn Dataset, split: Split) -> Vec<f32> {
    let shape = dataset.shape();
    let rows = if split == Split::Train { shape.train_rows } else { shape.test_rows };
    dataset.load(split, 0..rows).unwrap().inputs.column(0).to_vec()
}

#[test]
fn a_column_of_texts_becomes_hashed_words_behind_the_numbers() {
    let folder = Folder::new();
    folder
        .write("rows.csv", b"name,size,class\n\"Red, heart\",2,0\nblue car,3,1\nHEART (red),4,0\n");
    let text = Some("name".to_owned());
    let spec = DataSpec { header: true, text, text_buckets: 64, ..csv("rows.csv") };
    let data = open(&spec, Loss::Softmax, 1, folder.path()).unwrap();
    assert_eq!(data.shape().features, 65);
    let rows = data.load(Split::Train, 0..3).unwrap().inputs;
    assert_eq!(rows.column(0).to_vec(), [2.0, 3.0, 4.0]);
    let mut words = vec![0.0; 64];
    gradmesh_actors::hashing::hash_text("red heart", &mut words);
    assert_eq!(rows.row(0).to_vec()[1..], words);
    assert_eq!(rows.row(2).to_vec()[1..], words);
    assert_ne!(rows.row(1).to_vec()[1..], words);
}

#[test]
fn a_text_that_is_the_target_or_no_column_is_refused_with_its_key() {
    let folder = Folder::new();
    folder.write("rows.csv", b"red,0\nblue,1\n");
    let refused = |text: &str| {
        let spec = DataSpec { text: Some(text.into()), ..csv("rows.csv") };
        open(&spec, Loss::Softmax, 1, folder.path()).unwrap_err().to_string()
    };
    assert!(refused("1").contains("is the target and can't be the text; change job.data.text"));
    assert!(refused("5").ends_with("change job.data.text or job.data.header"), "{}", refused("5"));
}

#[test]
fn a_text_in_another_encoding_is_refused_with_its_line() {
    let folder = Folder::new();
    folder.write("rows.csv", b"red,0\ncaf\xe9,1\n");
    let spec = DataSpec { text: Some("0".into()), ..csv("rows.csv") };
    let refused = open(&spec, Loss::Softmax, 1, folder.path()).unwrap_err().to_string();
    assert!(refused.contains("line 2, column 0 (from 0): the text is not UTF-8"), "{refused}");
}

#[test]
fn texts_may_have_as_many_inputs_as_other_rows_and_no_more() {
    let folder = Folder::new();
    folder.write("rows.csv", b"red,0\n");
    folder.write("wider.csv", b"red,1,0\n");
    let open = |file: &str| {
        let text = Some("0".to_owned());
        let spec = DataSpec { text, text_buckets: 4_194_304, ..csv(file) };
        open(&spec, Loss::Squared, 1, folder.path())
    };
    assert_eq!(open("rows.csv").unwrap().shape().features, 4_194_304);
    let refused = open("wider.csv").unwrap_err().to_string();
    assert!(refused.contains("job.data.text_buckets"), "{refused}");
}
