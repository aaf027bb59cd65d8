//! What a build tells when it has succeeded: the image's id, and buildx's metadata file.

use std::io::Write as _;
use std::path::Path;

use roadstead_builder::image::assemble::Image;
use serde_json::{Map, Value, json};

use super::Args;
use super::names::Destinations;
use crate::error::{CliError, FileError};

/// Writes `--iidfile` and `--metadata-file`, and prints the id for `--quiet`.
#[expect(clippy::print_stdout, reason = "the image id of --quiet is data")]
pub(super) fn write(args: &Args, destinations: &Destinations, image: &Image) -> Result<(), CliError> {
    let id = image.id().to_string();
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &id)
            .map_err(FileError::at("write", path))
            .map_err(CliError::failed)?;
    }
    if let Some(path) = &args.metadata_file {
        let document = match destinations.has_image {
            true => metadata(destinations, image)?,
            false => Map::new(),
        };
        let mut text = serde_json::to_vec_pretty(&document).map_err(CliError::failed)?;
        text.push(b'\n');
        replace(path, &text)
            .map_err(FileError::at("write", path))
            .map_err(CliError::failed)?;
    }
    if args.quiet {
        println!("{id}");
    }
    Ok(())
}

/// The keys that BuildKit gives for an image. An index has no config.
fn metadata(destinations: &Destinations, image: &Image) -> Result<Map<String, Value>, CliError> {
    let mut document = Map::new();
    if let Some(config) = &image.config_digest {
        document.insert("containerimage.config.digest".to_owned(), json!(config));
    }
    let descriptor = serde_json::to_value(&image.descriptor).map_err(CliError::failed)?;
    document.insert("containerimage.descriptor".to_owned(), descriptor);
    document.insert("containerimage.digest".to_owned(), json!(image.descriptor.digest));
    if !destinations.names.is_empty() {
        let names: Vec<String> = destinations.names.iter().map(ToString::to_string).collect();
        document.insert("image.name".to_owned(), json!(names.join(",")));
    }
    Ok(document)
}

/// Writes a file whole or not at all. A link such as `/dev/stdout`, and what is no file, is written to as it is: never replaced.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return std::fs::write(path, text);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // It may never have been made.
        drop(std::fs::remove_file(&temporary));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_written_through_and_a_file_replaced() {
        let dir = std::env::temp_dir().join(format!("roadstead-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        std::fs::write(&file, "old and long").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        replace(&file, b"newer").unwrap();
        assert_eq!(std::fs::read(&link).unwrap(), b"newer");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
        replace(&dir.join("none/x"), b"x").unwrap_err();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
