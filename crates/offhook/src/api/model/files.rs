//! Files in JSON.

use data_encoding::BASE64;
use offhook_node::files::FileProgress;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hex;
use crate::proto::history::Attachment;

/// A file, as its message tells of it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FileTaken {
    /// Its content id.
    pub(crate) file: String,
    pub(crate) name: String,
    /// The media type that its author claims.
    #[serde(rename = "type")]
    pub(crate) media_type: String,
    pub(crate) bytes: u64,
    /// In pixels, of a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) height: Option<u32>,
    /// A small JPEG of a picture, in Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thumbnail: Option<String>,
}

impl FileTaken {
    pub(crate) fn new(file: &Attachment) -> Self {
        let picture = file.picture.as_ref();
        let thumbnail = picture
            .map(|picture| picture.thumbnail.as_slice())
            .filter(|jpeg| !jpeg.is_empty());
        Self {
            file: hex(&file.content.0),
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            bytes: file.bytes,
            width: picture.map(|picture| picture.width),
            height: picture.map(|picture| picture.height),
            thumbnail: thumbnail.map(|jpeg| BASE64.encode(jpeg)),
        }
    }
}

/// `GET /entries/{id}/files`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Files {
    pub(crate) entry: String,
    pub(crate) files: Vec<FileState>,
}

/// A file, and how much of it is here.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FileState {
    #[serde(flatten)]
    pub(crate) file: FileTaken,
    /// Bytes that are here and checked.
    pub(crate) here: u64,
    pub(crate) state: FileStanding,
    /// Members with a line that are asked for it.
    pub(crate) sources: usize,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileStanding {
    /// All of it is here.
    Here,
    /// It is being fetched, or waits for somebody who holds it.
    Coming,
    /// Nobody asked for it.
    Away,
    /// The room takes no files of this size.
    Refused,
}

impl FileStanding {
    pub(crate) fn of(progress: &FileProgress) -> Self {
        match (progress.is_whole, progress.is_fetching) {
            (true, _) => Self::Here,
            (false, true) => Self::Coming,
            (false, false) => Self::Away,
        }
    }
}

impl FileState {
    /// A file of a message in a room that takes files up to `room_max` bytes.
    pub(crate) fn new(file: &Attachment, room_max: u64, progress: FileProgress) -> Self {
        let state = match FileStanding::of(&progress) {
            FileStanding::Away if file.bytes > room_max => FileStanding::Refused,
            other => other,
        };
        Self {
            file: FileTaken::new(file),
            here: progress.bytes,
            state,
            sources: progress.sources,
            problem: progress.problem,
        }
    }
}
