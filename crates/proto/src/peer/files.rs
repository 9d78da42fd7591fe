//! Files of messages: who may have one, whom to ask for it, and which are still spoken of.

use crate::files::FileAsk;
use crate::history::{Attachment, ContentId, EntryId};
use crate::identity::DeviceId;
use crate::peer::Peer;
use crate::store::{Store, StoreError};

impl<S: Store> Peer<S> {
    /// The file that a message carries, where both are here and can be read.
    pub fn attachment(&self, entry: EntryId, content: ContentId) -> Result<Option<Attachment>, StoreError> {
        let files = self.entry(entry)?.map(|view| view.files).unwrap_or_default();
        Ok(files.into_iter().find(|file| file.content == content))
    }

    /// The largest file, in bytes, that the room of a message takes now; none where there is no such room here.
    pub fn file_limit(&self, entry: EntryId) -> Option<u64> {
        self.room_with(&entry).map(|room| room.roster.file_bytes_max)
    }

    /// The file that a device asks for, where it may have it: both are in the message's room, and the message still carries it.
    pub fn file_for(&self, peer: DeviceId, ask: &FileAsk) -> Result<Option<Attachment>, StoreError> {
        let (FileAsk::Held { entry, content } | FileAsk::Piece { entry, content, .. }) = *ask;
        let is_member = |room: &&super::Room| room.is_member() && room.devices.contains_key(&peer);
        if self.room_with(&entry).filter(is_member).is_none() {
            return Ok(None);
        }
        self.attachment(entry, content)
    }

    /// Devices that may hold the files of a message: those in its room, its author's first. With each, whether a line is up.
    pub fn file_sources(&self, entry: EntryId) -> Result<Vec<(DeviceId, bool)>, StoreError> {
        let Some(room) = self.room_with(&entry).filter(|room| room.is_member()) else {
            return Ok(Vec::new());
        };
        let author = self.entry(entry)?.map(|view| view.device);
        let others = room.devices.keys().filter(|device| **device != self.ctx.device);
        let mut sources: Vec<(DeviceId, bool)> = others
            .map(|device| (*device, self.lines.contains_key(device)))
            .collect();
        sources.sort_by_key(|(device, is_up)| (Some(*device) != author, !is_up, *device));
        Ok(sources)
    }
}
