//! Files and keys that a data set can't be made of: each refusal names the file, the place, the
//! numbers that decided, and what to change.

use gradmesh::data::{DataError, Place, open};
use gradmesh_actors::job::{DataSpec, Loss, ScaleSpec};
use proptest::prelude::*;

use crate::support::{Folder, csv, gzip, idx, idx_u8, idx_with_test};

#[test]
fn a_missing_file_is_named_with_the_key_to_change() {
    let folder = Folder::new();
    folder.write("images", &idx_u8(&[1, 1], &[0]));
    let refused = refusal(&folder, &idx("images", "labels"), Loss::Softmax).to_string();
    assert!(refused.ends_with("labels: no such file; change job.data.train_labels"), "{refused}");
}

#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    let refused = refusal(&Folder::new(), &csv("."), Loss::Softmax);
    assert!(matches!(refused, DataError::NotAFile { .. }), "{refused:?}");
}

#[test]
fn a_file_that_is_not_idx_is_refused_with_its_first_bytes() {
    let refused = refuse_images(b"\x89PNG and so on");
    let DataError::BadMagic { got, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(got, b"\x89PNG");
}

#[test]
fn idx_elements_of_an_unknown_type_are_refused() {
    let refused = refuse_images(&[0, 0, 0x0b, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    assert!(matches!(refused, DataError::ElementType { got: 0x0b, .. }), "{refused:?}");
}

#[test]
fn labels_in_place_of_images_are_refused() {
    let refused = refuse_images(&idx_u8(&[2], &[0, 1]));
    assert!(matches!(refused, DataError::Rank { got: 1, .. }), "{refused:?}");
}

#[test]
fn a_truncated_idx_file_is_refused_with_both_lengths() {
    // A header of 12 bytes and two rows of three, one byte short.
    for images in [idx_u8(&[2, 3], &[0; 5]), gzip(&idx_u8(&[2, 3], &[0; 5]))] {
        let refused = refuse_images(&images);
        assert!(
            matches!(refused, DataError::Truncated { expected: 18, got: 17, .. }),
            "{refused:?}"
        );
    }
}

#[test]
fn every_truncation_of_an_idx_file_is_refused() {
    let images = idx_u8(&[2, 3], &[0; 6]);
    for length in 0..images.len() {
        let refused = refuse_images(&images[..length]);
        let expected_got = length as u64;
        assert!(
            matches!(refused, DataError::Truncated { got, .. } if got == expected_got),
            "{length}: {refused:?}"
        );
    }
}

#[test]
fn every_truncation_of_a_gzip_file_is_refused() {
    let images = gzip(&idx_u8(&[2, 3], &[0, 1, 2, 3, 4, 5]));
    let rows = gzip(b"1,2\n3,4\n");
    // From the two bytes on that make it gzip.
    for length in 2..images.len() {
        let refused = refuse_images(&images[..length]);
        assert!(matches!(refused, DataError::TruncatedGzip { .. }), "{length}: {refused:?}");
    }
    for length in 2..rows.len() {
        let refused = refuse_rows(&rows[..length]);
        assert!(matches!(refused, DataError::TruncatedGzip { .. }), "{length}: {refused:?}");
    }
}

#[test]
fn a_damaged_gzip_file_is_refused_by_its_checksum() {
    let mut rows = gzip(b"1,2\n3,4\n");
    let checksum = rows.len() - 8;
    rows[checksum] ^= 1;
    let refused = refuse_rows(&rows);
    assert!(matches!(refused, DataError::CorruptGzip { .. }), "{refused:?}");
}

#[test]
fn bytes_after_the_last_row_are_refused() {
    for images in [idx_u8(&[2, 3], &[0; 7]), gzip(&idx_u8(&[2, 3], &[0; 7]))] {
        let refused = refuse_images(&images);
        assert!(matches!(refused, DataError::Trailing { expected: 18, .. }), "{refused:?}");
    }
}

/// 2³² - 1 rows of 784 bytes would be 3.4 TB: memory for them can't be had.
#[test]
fn rows_that_only_a_header_announces_take_no_memory() {
    let folder = Folder::new();
    folder.write("images", &gzip(&idx_u8(&[u32::MAX, 28, 28], &[0; 784])));
    folder.write("labels", &gzip(&idx_u8(&[u32::MAX], &[0; 10])));
    let refused = refusal(&folder, &idx("images", "labels"), Loss::Softmax);
    let DataError::Truncated { expected, got, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((expected, got), (16 + 784 * u64::from(u32::MAX), 800));
}

#[test]
fn a_row_wider_than_the_limit_is_refused_before_it_is_read() {
    for dimensions in [&[1, u32::MAX][..], &[1, 65_536, 65_536, 65_536, 65_536]] {
        let refused = refuse_images(&idx_u8(dimensions, &[]));
        assert!(matches!(refused, DataError::TooWide { limit: 4_194_304, .. }), "{refused:?}");
    }
}

#[test]
fn images_and_labels_of_different_counts_are_refused_with_both() {
    let folder = Folder::new();
    folder.write("images", &idx_u8(&[3, 1], &[0; 3]));
    folder.write("labels", &idx_u8(&[2], &[0; 2]));
    let refused = refusal(&folder, &idx("images", "labels"), Loss::Softmax);
    assert!(
        matches!(refused, DataError::RowCounts { input_rows: 3, label_rows: 2, .. }),
        "{refused:?}"
    );
}

#[test]
fn an_idx_float_that_is_not_finite_is_refused_with_its_place() {
    let header = [&[0, 0, 0x0d, 2][..], &2_u32.to_be_bytes(), &1_u32.to_be_bytes()].concat();
    let values = [1.0_f32.to_be_bytes(), f32::NAN.to_be_bytes()].concat();
    let refused = refuse_images(&[header, values].concat());
    let DataError::NotFinite { place, column, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((place, column.as_str()), (Place::Row(1), "0 (from 0)"));
}

#[test]
fn csv_values_that_are_not_finite_are_refused_with_line_and_column() {
    for value in ["NaN", "inf", "-Infinity", "1e60"] {
        let refused = refuse_rows(format!("1,2,0\n3,{value},1\n").as_bytes());
        let DataError::NotFinite { place, column, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((place, column.as_str()), (Place::Line(2), "1 (from 0)"));
    }
}

#[test]
fn the_line_of_a_bad_row_is_the_one_that_an_editor_shows() {
    for (rows, expected) in [
        ("x,0\n", 1),
        ("1,0\nx,0\n", 2),
        ("1,0\nx,0", 2),
        ("1,0\r\nx,0\r\n", 2),
        ("1,0\r\n\r\n\r\nx,0\r\n", 4),
        ("\n\n1,0\n\nx,0", 5),
        ("\"1\n\",0\nx,0\n", 3),
    ] {
        let refused = refuse_rows(rows.as_bytes());
        let DataError::NotANumber { line, .. } = refused else { panic!("{rows:?}: {refused:?}") };
        assert_eq!(line, expected, "{rows:?}");
    }
}

#[test]
fn a_field_that_is_not_a_number_is_refused_with_its_text_and_column_name() {
    let folder = Folder::new();
    folder.write("rows.csv", b"age,class\n31,0\nold,1\n");
    let spec = DataSpec { header: true, ..csv("rows.csv") };
    let refused = refusal(&folder, &spec, Loss::Softmax).to_string();
    let expected = "line 3, column 0 (from 0, \"age\"): \"old\" is not a number";
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn a_row_with_another_number_of_columns_is_refused() {
    for (rows, columns) in [("1,2,0\n3,1\n", 2), ("1,2,0\n3,4,5,1\n", 4)] {
        let refused = refuse_rows(rows.as_bytes());
        assert!(
            matches!(refused, DataError::RaggedRow { line: 2, expected: 3, got, .. } if got == columns),
            "{refused:?}"
        );
    }
}

#[test]
fn a_quote_that_nobody_closes_does_not_take_the_file_into_memory() {
    // A limit of 64 MiB, and a file that goes on after it.
    let mut rows = b"1,0\n\"".to_vec();
    rows.resize(80 << 20, b'1');
    let refused = refuse_rows(&gzip(&rows));
    assert!(
        matches!(refused, DataError::RowTooLong { line: 2, limit: 67_108_864, .. }),
        "{refused:?}"
    );
}

#[test]
fn a_target_that_is_no_class_is_refused_with_the_loss_that_takes_it() {
    for target in ["1.5", "-1", "65536"] {
        let refused = refuse_rows(format!("1,0\n2,{target}\n").as_bytes());
        assert!(matches!(refused, DataError::NotAClass { line: 2, .. }), "{refused:?}");
        assert!(refused.to_string().ends_with("set job.model.loss = \"squared\""), "{refused}");
    }
}

#[test]
fn a_csv_test_label_beyond_the_training_labels_is_refused() {
    let folder = Folder::new();
    folder.write("train.csv", b"1,0\n1,2\n");
    folder.write("test.csv", b"1,0\n1,3\n");
    let spec = DataSpec { test: Some("test.csv".to_owned()), ..csv("train.csv") };
    let refused = refusal(&folder, &spec, Loss::Softmax).to_string();
    let expected = "test.csv: line 2: label 3 is out of range, the training labels are 0 to 2";
    assert!(refused.contains(expected), "{refused}");
    assert!(refused.ends_with("job.data.test"), "{refused}");
}

#[test]
fn an_idx_test_label_beyond_the_training_labels_is_refused() {
    let folder = Folder::new();
    folder.write("images", &idx_u8(&[2, 1], &[0; 2]));
    folder.write("labels", &idx_u8(&[2], &[0, 1]));
    folder.write("test-labels", &idx_u8(&[2], &[1, 9]));
    let spec = idx_with_test("images", "labels", "images", "test-labels");
    let refused = refusal(&folder, &spec, Loss::Softmax);
    let DataError::LabelOutOfRange { file, place, label, classes } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(file.key, "job.data.test_labels");
    assert_eq!((place, label, classes), (Place::Row(1), 9, 2));
}

#[test]
fn test_rows_with_another_number_of_values_are_refused() {
    let folder = Folder::new();
    folder.write("train.csv", b"1,2,0\n");
    folder.write("test.csv", b"1,0\n");
    let spec = DataSpec { test: Some("test.csv".to_owned()), ..csv("train.csv") };
    let refused = refusal(&folder, &spec, Loss::Softmax);
    assert!(matches!(refused, DataError::Features { expected: 2, got: 1, .. }), "{refused:?}");
}

#[test]
fn test_columns_in_another_order_are_refused() {
    let folder = Folder::new();
    folder.write("train.csv", b"a,b,class\n1,2,0\n");
    folder.write("test.csv", b"b,a,class\n1,2,0\n");
    let spec = DataSpec { test: Some("test.csv".to_owned()), header: true, ..csv("train.csv") };
    let refused = refusal(&folder, &spec, Loss::Softmax).to_string();
    assert!(refused.contains("test.csv has a column \"b\" where"), "{refused}");
}

#[test]
fn a_file_without_rows_is_refused() {
    let folder = Folder::new();
    folder.write("empty.csv", b"\n\n");
    folder.write("header.csv", b"a,class\n");
    folder.write("images", &idx_u8(&[0, 4], &[]));
    folder.write("labels", &idx_u8(&[0], &[]));
    let with_header = DataSpec { header: true, ..csv("header.csv") };
    for spec in [csv("empty.csv"), with_header, idx("images", "labels")] {
        let refused = refusal(&folder, &spec, Loss::Softmax);
        assert!(matches!(refused, DataError::Empty { .. }), "{refused:?}");
    }
}

#[test]
fn a_csv_file_with_a_target_only_is_refused() {
    let refused = refuse_rows(b"1\n2\n");
    assert!(matches!(refused, DataError::NoInputs { .. }), "{refused:?}");
}

#[test]
fn columns_that_no_comma_separates_are_refused_with_what_does() {
    for (rows, line, found) in [
        (&b"1;2;0\n"[..], 1, "semicolons"),
        (b"1\t0\n", 1, "tabs"),
        // Decimals with a comma, as some countries write them.
        (b"1,5;2,5\n", 1, "semicolons"),
        (b"1,0\n1;0,0\n", 2, "semicolons"),
    ] {
        let refused = refuse_rows(rows).to_string();
        let expected = format!("line {line}: columns are separated by {found}; separate them with");
        assert!(refused.contains(&expected), "{refused}");
    }
}

#[test]
fn an_unknown_target_is_refused_with_the_columns_that_there_are() {
    let folder = Folder::new();
    folder.write("rows.csv", b"age,income,age\n1,2,3\n");
    // One that isn't there, one that is there twice, and numbers past either end.
    for target in ["class", "age", "3", "-4", "9223372036854775807"] {
        let spec = DataSpec { header: true, target: target.to_owned(), ..csv("rows.csv") };
        let refused = refusal(&folder, &spec, Loss::Squared).to_string();
        let expected = format!("no one column is \"{target}\", there are 3 (age, income, age)");
        assert!(refused.contains(&expected), "{refused}");
    }
}

#[test]
fn label_files_go_with_idx_only() {
    let folder = Folder::new();
    let no_labels = DataSpec { train_labels: None, ..idx("images", "") };
    let csv_labels = DataSpec { train_labels: Some("labels".to_owned()), ..csv("rows.csv") };
    let refused = [no_labels, csv_labels].map(|spec| refusal(&folder, &spec, Loss::Softmax));
    assert!(refused[0].to_string().ends_with("set job.data.train_labels"), "{}", refused[0]);
    assert!(refused[1].to_string().ends_with("remove job.data.train_labels"), "{}", refused[1]);
}

#[test]
fn settings_out_of_range_are_refused() {
    let folder = Folder::new();
    for test_fraction in [-0.1, 1.0, f64::NAN] {
        let refused =
            refusal(&folder, &DataSpec { test_fraction, ..csv("rows.csv") }, Loss::Softmax);
        assert!(refused.to_string().ends_with("job.data.test_fraction"), "{refused}");
    }
    for divide_by in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let spec = DataSpec { scale: ScaleSpec::Divide, divide_by, ..csv("rows.csv") };
        let refused = refusal(&folder, &spec, Loss::Softmax);
        assert!(refused.to_string().ends_with("job.data.divide_by"), "{refused}");
    }
}

proptest! {
    /// Whatever the bytes, the answer is a data set or a refusal.
    #[test]
    fn no_bytes_bring_the_reader_down(
        start in prop::sample::select(vec![
            vec![], vec![0, 0, 8, 2, 0, 0], vec![0, 0, 13, 3, 0], vec![0x1f, 0x8b], gzip(b"1,2\n"),
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let folder = Folder::new();
        folder.write("file", &[start, rest].concat());
        folder.write("labels", &idx_u8(&[1], &[0]));
        for spec in [idx("file", "labels"), csv("file"), idx("file", "file")] {
            if let Err(refused) = open(&spec, Loss::Softmax, 1, folder.path()) {
                prop_assert!(refused.to_string().contains("job.data."), "{refused}");
            }
        }
    }
}

fn refusal(folder: &Folder, spec: &DataSpec, loss: Loss) -> DataError {
    match open(spec, loss, 1, folder.path()) {
        Err(refused) => refused,
        Ok(dataset) => panic!("{:?} was accepted", dataset.shape()),
    }
}

/// Images of these bytes with two good labels.
fn refuse_images(images: &[u8]) -> DataError {
    let folder = Folder::new();
    folder.write("images", images);
    folder.write("labels", &idx_u8(&[2], &[0, 1]));
    refusal(&folder, &idx("images", "labels"), Loss::Softmax)
}

/// CSV rows of these bytes, the class in the last column.
fn refuse_rows(rows: &[u8]) -> DataError {
    let folder = Folder::new();
    folder.write("rows.csv", rows);
    refusal(&folder, &csv("rows.csv"), Loss::Softmax)
}
