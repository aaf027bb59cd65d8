//! `roadstead image inspect`.

use std::process::ExitCode;

use roadstead_registry_client::{
    CONFIG_LIMIT, Descriptor, ImageConfig, ImageSource, Index, Manifest, Platform, Selection, media_type, read_small,
    select,
};
use serde_json::{Value, json};

use super::{Place, described, print, print_json};
use crate::client::NetworkFlags;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image.
    #[arg(value_name = "PLACE", value_parser = Place::registry_by_default)]
    place: Place,
    /// The image for a platform out of an index [default: this machine's, when there is one].
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print the manifest or index as it is, byte for byte.
    #[arg(long, conflicts_with = "config")]
    raw: bool,
    /// Print the image's configuration as it is.
    #[arg(long)]
    config: bool,
    /// Taken for uniformity: the output is JSON in any case.
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    network: NetworkFlags,
}

/// A manifest or index that was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let client = args.network.client()?;
    let source = args.place.source(&client).await?;
    let root = look_up(&*source, &Selection::All).await?;
    if args.raw {
        let wanted = match &args.platform {
            Some(platform) => look_up(&*source, &Selection::Platform(platform.clone())).await?,
            None => root,
        };
        return print_bytes(&wanted.bytes);
    }
    let is_index = media_type::is_index(&root.descriptor.media_type);
    let image = match &args.platform {
        None if !is_index => root.clone(),
        platform => {
            let platform = platform.clone().unwrap_or_else(Platform::host);
            match look_up(&*source, &Selection::Platform(platform)).await {
                // An index for other machines can be shown all the same.
                Err(_) if args.platform.is_none() && !args.config => {
                    return print_json(&index_document(&args.place.label(), &root)?).map(|()| ExitCode::SUCCESS);
                }
                found => found?,
            }
        }
    };
    let manifest = Manifest::parse(&image.bytes).map_err(CliError::registry)?;
    let config = read_small(&*source, &manifest.config, CONFIG_LIMIT)
        .await
        .map_err(CliError::registry)?;
    if args.config {
        return print_bytes(&config);
    }
    let mut document = match is_index {
        true => index_document(&args.place.label(), &root)?,
        false => described(&args.place.label(), &root.descriptor),
    };
    document["image"] = image_document(&image.descriptor, &manifest, &config)?;
    print_json(&document)?;
    Ok(ExitCode::SUCCESS)
}

/// Finds what a selection means.
pub(super) async fn look_up(source: &dyn ImageSource, selection: &Selection) -> Result<Found, CliError> {
    let (descriptor, bytes) = select(source, selection).await.map_err(CliError::registry)?;
    Ok(Found { descriptor, bytes })
}

fn index_document(name: &str, root: &Found) -> Result<Value, CliError> {
    let index = Index::parse(&root.bytes).map_err(CliError::registry)?;
    let mut document = described(name, &root.descriptor);
    document["manifests"] = serde_json::to_value(&index.manifests).map_err(CliError::failed)?;
    document["annotations"] = json!(index.annotations);
    Ok(document)
}

fn image_document(descriptor: &Descriptor, manifest: &Manifest, config: &[u8]) -> Result<Value, CliError> {
    let mut document = json!({
        "digest": descriptor.digest,
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "annotations": manifest.annotations,
        "configDigest": manifest.config.digest,
        "layers": manifest.layers,
        "layersSize": manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size)),
    });
    if media_type::is_config(&manifest.config.media_type) {
        let config = ImageConfig::parse(config).map_err(CliError::registry)?;
        document["platform"] = json!(config.platform().to_string());
        document["config"] = config.raw().clone();
    }
    Ok(document)
}

fn print_bytes(bytes: &[u8]) -> Result<ExitCode, CliError> {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the images of an index.
pub(super) async fn index(place: &Place, json: bool, network: &NetworkFlags) -> Result<ExitCode, CliError> {
    let client = network.client()?;
    let root = look_up(&*place.source(&client).await?, &Selection::All).await?;
    if !media_type::is_index(&root.descriptor.media_type) {
        return Err(CliError::failed(format!(
            "`{}` is a single image, not an index",
            place.label()
        )));
    }
    let document = index_document(&place.label(), &root)?;
    if json {
        print_json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let index = Index::parse(&root.bytes).map_err(CliError::registry)?;
    let mut text = format!(
        "Name:      {}\nMediaType: {}\nDigest:    {}\n\nManifests:\n",
        place.label(),
        root.descriptor.media_type,
        root.descriptor.digest
    );
    for entry in &index.manifests {
        let platform = entry
            .platform
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        text.push_str(&format!(
            "  {platform:<20} {} {}\n",
            entry.digest,
            entry.media_type.escape_debug()
        ));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
