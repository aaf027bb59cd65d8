//! The example as a job: on a queue, taken by an agent.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{capture, program, run};
use crate::error::{Result, TaskError};
use crate::workspace::{copy, make_empty, root};

use super::site::Site;

/// What a finished job left.
#[derive(Debug)]
pub(super) struct Job {
    /// The image's name as `imagedefinitions.json` has it.
    image: String,
}

/// An image by name and digest.
#[derive(Debug)]
pub(super) struct Image {
    /// The name with its tag.
    pub(super) name: String,
    /// The digest that `imageDetail.json` tells.
    pub(super) digest: String,
}

/// Submits the example and lets an agent run it.
pub(super) fn run_example(site: &Site<'_>) -> Result<Job> {
    let source = source(site)?;
    let queue_directory = site.path("queue");
    make_empty(&queue_directory)?;
    let queue = format!("sqlite:{}", queue_directory.join("queue.db").display());
    let mut submit = site.roadstead();
    submit.args(["submit", "--queue", &queue, "--source"]).arg(&source);
    let id = capture(&mut site.take(&mut submit))?;
    let id = id.trim();
    println!("job {id}");
    let roadstead = |arguments: &[&str]| site.take(site.roadstead().args(arguments));
    let agent = run(&mut roadstead(&["agent", "--once", "--queue", &queue]));
    run(&mut roadstead(&["jobs", "--queue", &queue, "logs", id]))?;
    agent?;
    let text = capture(&mut roadstead(&["jobs", "--queue", &queue, "--json", "show", id]))?;
    let job = json(&text, "the job")?;
    let status = string(&job, "/status")?;
    if status != "SUCCEEDED" {
        return Err(TaskError::new(format!(
            "the job {id} ended as {status}; its log is above"
        )));
    }
    let artifacts = PathBuf::from(string(&job, "/artifacts")?);
    let definitions = read(&artifacts.join("imagedefinitions.json"))?;
    Ok(Job {
        image: string(&definitions, "/0/imageUri")?,
    })
}

/// A git repository with the example in one commit, whose id becomes the image's tag.
fn source(site: &Site<'_>) -> Result<PathBuf> {
    let source = site.path("source");
    make_empty(&source)?;
    copy(&root().join("examples/node-service"), &source)?;
    let git = || {
        let mut git = program("git");
        git.arg("-C")
            .arg(&source)
            .args(["-c", "user.name=demo", "-c", "user.email=demo@localhost"]);
        git
    };
    run(git().args(["init", "--quiet", "--initial-branch=main"]))?;
    run(git().args(["add", "--all"]))?;
    run(git().args(["commit", "--quiet", "--message", "a small service"]))?;
    Ok(source)
}

/// Writes the deploy stage's files with the digest in place of the tag.
pub(super) fn pin(site: &Site<'_>, job: &Job) -> Result<Image> {
    let output = site.path("pinned");
    make_empty(&output)?;
    let mut pin = site.roadstead();
    pin.args([
        "imagedefinitions",
        &format!("app={}", job.image),
        "--pin",
        "--output-dir",
    ])
    .arg(&output);
    run(&mut site.take(&mut pin))?;
    read(&output.join("imagedefinitions.json"))?;
    let detail = read(&output.join("imageDetail.json"))?;
    Ok(Image {
        name: job.image.clone(),
        digest: string(&detail, "/ImageDigest")?,
    })
}

/// Reads a JSON file and prints it.
fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(TaskError::at("read", path))?;
    println!("{}: {}", path.file_name().unwrap_or_default().display(), text.trim());
    json(&text, &path.display().to_string())
}

/// Parses JSON, saying whose it is when it is none.
pub(super) fn json(text: &str, what: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| TaskError::new(format!("{what} is no JSON: {error}")))
}

/// Takes a string out of JSON.
pub(super) fn string(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .ok_or_else(|| TaskError::new(format!("there is no string at `{pointer}` in {value}")))
}
