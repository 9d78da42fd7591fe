//! Files on disk: sealed, each under the root of its BLAKE3 tree, with the inner hashes of the tree beside it.
//!
//! In the folder `files` of the home, with the root in hexadecimal as `X`: `X` a whole file, `X.part` one that is coming in, `X.tree` the tree's inner hashes,
//! `X.for` the messages that carry it, one id a line; `*.new` is being written by this process. A file without `X.for` belongs to no message and is swept away at
//! the next start. What of a part is right is told by its hashes alone: after a crash, or a power cut, it is looked at once more. Everything here blocks.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bao_tree::io::outboard::PreOrderOutboard;
use bao_tree::io::sync::{CreateOutboard as _, ReadAt as _, decode_ranges, encode_ranges_validated, valid_ranges};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use offhook_proto::crypto::{Secret, apply_stream};
use offhook_proto::files::{GROUP_BYTES, PIECE_BYTES, piece_count, piece_range};
use offhook_proto::history::{ContentId, EntryId, IntervalSet};

/// Leaves of 256 chunks of BLAKE3, 1 KiB each.
const BLOCK: BlockSize = BlockSize::from_chunk_log(8);
const CHUNK_BYTES: u64 = 1024;
/// Bytes sealed or opened at once.
const STEP_BYTES: usize = 256 << 10;
/// A slice of the tree for one piece: its bytes, and the inner hashes down to it.
pub(super) const SLICE_BYTES_MAX: usize = PIECE_BYTES as usize + 64 * 128;

const _: () = assert!(GROUP_BYTES == CHUNK_BYTES << 8);

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

/// A file that was taken in.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its sealed bytes.
    pub content: ContentId,
    /// What it is sealed with.
    pub key: Secret,
    /// How large it is.
    pub bytes: u64,
}

type Tree = PreOrderOutboard<File>;

impl Shelf {
    /// Opens the folder, sweeps away what belongs to nothing, and returns the messages of each file that is to be here.
    pub(crate) fn open(home: &Path) -> io::Result<(Self, BTreeMap<ContentId, Vec<EntryId>>)> {
        let shelf = Self {
            dir: home.join("files"),
        };
        fs::create_dir_all(&shelf.dir)?;
        let mut wanted = BTreeMap::new();
        let mut others = Vec::new();
        for entry in fs::read_dir(&shelf.dir)? {
            let path = entry?.path();
            let Some(content) = content_of(&path) else {
                continue;
            };
            if path.extension().is_some_and(|extension| extension == "for") {
                let lines = fs::read_to_string(&path)?;
                wanted.insert(content, lines.lines().filter_map(|line| line.parse().ok()).collect());
            } else {
                others.push((content, path));
            }
        }
        for (content, path) in others {
            let is_unfinished = path.extension().is_some_and(|extension| extension == "new");
            if is_unfinished || !wanted.contains_key(&content) {
                fs::remove_file(path)?;
            }
        }
        Ok((shelf, wanted))
    }

    fn path(&self, content: &ContentId, extension: &str) -> PathBuf {
        let name: String = content.0.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name + extension)
    }

    /// Whether all of a file is here.
    pub(super) fn is_whole(&self, content: &ContentId) -> bool {
        self.path(content, "").exists()
    }

    /// Begins to take a file in.
    pub(super) fn begin(&self, key: Secret) -> io::Result<Sealing> {
        // Any name that nothing else has: the content is not known yet.
        let name = Secret::derive(&key, "offhook 1 file being taken in", b"");
        let path = self.path(&ContentId(name.0), ".new");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Sealing {
            shelf: self.clone(),
            path,
            file,
            key,
            bytes: 0,
        })
    }

    /// Writes down which messages carry a file.
    pub(super) fn set_entries(&self, content: &ContentId, entries: &[EntryId]) -> io::Result<()> {
        let lines: String = entries.iter().map(|id| format!("{id}\n")).collect();
        let (new, path) = (self.path(content, ".for-new"), self.path(content, ".for"));
        let mut file = File::create(&new)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    /// Removes all of a file.
    pub(super) fn remove(&self, content: &ContentId) -> io::Result<()> {
        // The list last: what it does not name is swept away.
        for extension in ["", ".part", ".tree", ".for"] {
            match fs::remove_file(self.path(content, extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens a file that is not whole, or makes an empty one, and looks which pieces of it are right.
    pub(super) fn open_part(&self, content: &ContentId, bytes: u64) -> io::Result<(Part, IntervalSet)> {
        let open = |extension| {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .clone();
            options.open(self.path(content, extension))
        };
        let (data, hashes) = (open(".part")?, open(".tree")?);
        let part = Part {
            tree: tree(content, bytes, hashes),
            data,
        };
        part.tree.data.set_len(part.tree.tree.outboard_size())?;
        let is_new = part.data.metadata()?.len() == 0;
        part.data.set_len(bytes)?;
        let held = if is_new {
            IntervalSet::default()
        } else {
            part.right_pieces()?
        };
        Ok((part, held))
    }

    /// All of a part is here: it becomes a whole file.
    pub(super) fn finish(&self, content: &ContentId, part: &Part) -> io::Result<()> {
        part.tree.data.sync_all()?;
        part.data.sync_all()?;
        fs::rename(self.path(content, ".part"), self.path(content, ""))?;
        File::open(&self.dir)?.sync_all()
    }

    /// A piece as a verified slice of the tree. `None` where it is not here, or not right.
    pub(super) fn slice(&self, content: &ContentId, bytes: u64, piece: u32) -> Option<Vec<u8>> {
        let data = File::open(self.path(content, "")).or_else(|_| File::open(self.path(content, ".part")));
        let hashes = File::open(self.path(content, ".tree"));
        let (data, hashes) = (data.ok()?, hashes.ok()?);
        let mut slice = Vec::with_capacity(SLICE_BYTES_MAX);
        let wanted = chunks(piece, bytes)?;
        encode_ranges_validated(&data, tree(content, bytes, hashes), &wanted, &mut slice).ok()?;
        Some(slice)
    }

    /// Opens a whole file to read what it says.
    pub(super) fn read(&self, content: &ContentId, key: Secret, bytes: u64) -> io::Result<Opened> {
        let file = File::open(self.path(content, ""))?;
        if file.metadata()?.len() != bytes {
            let text = "the file's size on disk is not what its message says";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Opened { file, key, bytes })
    }
}

/// The content that a path is about.
fn content_of(path: &Path) -> Option<ContentId> {
    let hex = path.file_stem()?.to_str()?;
    let mut content = [0; 32];
    if hex.len() != content.len() * 2 || !hex.is_ascii() {
        return None;
    }
    for (i, byte) in content.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(ContentId(content))
}

fn tree(content: &ContentId, bytes: u64, hashes: File) -> Tree {
    PreOrderOutboard {
        root: content.0.into(),
        tree: BaoTree::new(bytes, BLOCK),
        data: hashes,
    }
}

/// The chunks of a piece; none where the file has no such piece.
fn chunks(piece: u32, bytes: u64) -> Option<ChunkRanges> {
    let range = piece_range(piece, bytes);
    let is_there = piece > 0 && !range.is_empty();
    is_there.then(|| ChunkRanges::from(ChunkNum(range.start / CHUNK_BYTES)..ChunkNum(range.end.div_ceil(CHUNK_BYTES))))
}

/// A file that is being taken in.
#[derive(Debug)]
pub(super) struct Sealing {
    shelf: Shelf,
    path: PathBuf,
    file: File,
    key: Secret,
    bytes: u64,
}

impl Sealing {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Seals and writes; the argument is changed.
    pub(super) fn write(&mut self, part: &mut [u8]) -> io::Result<()> {
        apply_stream(&self.key, self.bytes, part);
        self.file.write_all(part)?;
        self.bytes += part.len() as u64;
        Ok(())
    }

    /// Makes the tree and puts the file in its place. The same content twice is one file.
    pub(super) fn finish(self) -> io::Result<Kept> {
        let hashes_path = self.path.with_extension("tree-new");
        let hashes = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&hashes_path)?;
        let mut tree = tree(&ContentId([0; 32]), self.bytes, hashes);
        let mut whole = &self.file;
        io::Seek::rewind(&mut whole)?;
        tree.init_from(io::BufReader::with_capacity(STEP_BYTES, whole))?;
        let content = ContentId(*tree.root.as_bytes());
        tree.data.set_len(tree.tree.outboard_size())?;
        tree.data.sync_all()?;
        self.file.sync_all()?;
        fs::rename(hashes_path, self.shelf.path(&content, ".tree"))?;
        fs::rename(&self.path, self.shelf.path(&content, ""))?;
        File::open(&self.shelf.dir)?.sync_all()?;
        Ok(Kept {
            content,
            key: self.key.clone(),
            bytes: self.bytes,
        })
    }

    /// Forgets what was written.
    pub(super) fn abandon(self) {
        // Else it is swept away at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// A file that is coming in.
#[derive(Debug)]
pub(super) struct Part {
    tree: Tree,
    data: File,
}

impl Part {
    /// Checks a slice and writes its piece. Fails with [`io::ErrorKind::InvalidData`] where it is not what the root says.
    pub(super) fn put(&mut self, piece: u32, slice: &[u8]) -> io::Result<()> {
        let bytes = self.tree.tree.size();
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not the piece that was asked for");
        let wanted = chunks(piece, bytes).ok_or_else(wrong)?;
        let Part { tree, data } = self;
        decode_ranges(io::Cursor::new(slice), &wanted, data, tree).map_err(|error| match error {
            bao_tree::io::DecodeError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => error,
            _ => wrong(),
        })
    }

    /// The pieces that are right, by their hashes.
    fn right_pieces(&self) -> io::Result<IntervalSet> {
        let bytes = self.tree.tree.size();
        let mut right = ChunkRanges::empty();
        let as_read = PreOrderOutboard {
            root: self.tree.root,
            tree: self.tree.tree,
            data: &self.tree.data,
        };
        for range in valid_ranges(as_read, &self.data, &ChunkRanges::all()) {
            right |= ChunkRanges::from(range?);
        }
        let mut held = IntervalSet::default();
        for piece in 1..=piece_count(bytes) {
            if chunks(piece, bytes).is_some_and(|wanted| wanted.is_subset(&right)) {
                held.insert(piece, piece);
            }
        }
        Ok(held)
    }
}

/// A whole file, opened for reading.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    key: Secret,
    pub(super) bytes: u64,
}

impl Opened {
    /// What the file says from `at` on, at most `len` bytes; empty at its end.
    pub(super) fn read_at(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        self.file.read_exact_at(at, &mut bytes)?;
        apply_stream(&self.key, at, &mut bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(shelf: &Shelf, plain: &[u8]) -> Kept {
        let mut sealing = shelf.begin(Secret([5; 32])).unwrap();
        for part in plain.chunks(100_000) {
            sealing.write(&mut part.to_vec()).unwrap();
        }
        sealing.finish().unwrap()
    }

    fn plain(bytes: usize) -> Vec<u8> {
        (0..bytes as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    fn two() -> (tempfile::TempDir, Shelf, Shelf) {
        let dir = tempfile::tempdir().unwrap();
        let (from, _) = Shelf::open(&dir.path().join("a")).unwrap();
        let (to, _) = Shelf::open(&dir.path().join("b")).unwrap();
        (dir, from, to)
    }

    #[test]
    fn files_of_every_size_travel_piece_by_piece() {
        let (_dir, from, to) = two();
        for size in [0, 1, 1024, 300_000, PIECE_BYTES as usize, 3 * PIECE_BYTES as usize + 17] {
            let plain = plain(size);
            let kept = sealed(&from, &plain);
            assert_eq!(kept.bytes, size as u64);
            assert!(from.is_whole(&kept.content));
            let (mut part, held) = to.open_part(&kept.content, kept.bytes).unwrap();
            assert!(held.is_empty());
            for piece in (1..=piece_count(kept.bytes)).rev() {
                let slice = from.slice(&kept.content, kept.bytes, piece).unwrap();
                assert!(slice.len() <= SLICE_BYTES_MAX);
                part.put(piece, &slice).unwrap();
            }
            to.finish(&kept.content, &part).unwrap();
            let opened = to.read(&kept.content, kept.key, kept.bytes).unwrap();
            assert_eq!(opened.read_at(0, size + 1).unwrap(), plain);
            assert_eq!(
                opened.read_at(size as u64 / 2, 10).unwrap(),
                plain[size / 2..(size / 2 + 10).min(size)]
            );
        }
    }

    #[test]
    fn wrong_bytes_are_refused_and_a_part_is_known_again() {
        let (_dir, from, to) = two();
        let kept = sealed(&from, &plain(4 * PIECE_BYTES as usize));
        let slice = |piece| from.slice(&kept.content, kept.bytes, piece).unwrap();
        let (mut part, _) = to.open_part(&kept.content, kept.bytes).unwrap();
        let mut changed = slice(2);
        *changed.last_mut().unwrap() ^= 1;
        let refused = |part: &mut Part, piece, slice: &[u8]| {
            let error = part.put(piece, slice).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        };
        refused(&mut part, 2, &changed);
        refused(&mut part, 2, &slice(3));
        refused(&mut part, 2, &slice(2)[..1000]);
        refused(&mut part, 9, &slice(2));
        part.put(1, &slice(1)).unwrap();
        part.put(3, &slice(3)).unwrap();
        drop(part);
        let (_, held) = to.open_part(&kept.content, kept.bytes).unwrap();
        assert_eq!(held.ranges(), [(1, 1), (3, 3)]);
        assert!(
            to.slice(&kept.content, kept.bytes, 3).is_some(),
            "a part is served from, too"
        );
        assert!(to.slice(&kept.content, kept.bytes, 2).is_none());
        assert!(to.slice(&kept.content, kept.bytes, 0).is_none());
    }

    #[test]
    fn what_no_message_carries_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let (shelf, _) = Shelf::open(dir.path()).unwrap();
        let (lost, kept) = (sealed(&shelf, &plain(10)), sealed(&shelf, &plain(20)));
        let mut begun = shelf.begin(Secret([6; 32])).unwrap();
        begun.write(&mut plain(9)).unwrap();
        let id: EntryId = "kjcxdvlubyz2w.6".parse().unwrap();
        shelf.set_entries(&kept.content, &[id]).unwrap();
        let (shelf, wanted) = Shelf::open(dir.path()).unwrap();
        assert_eq!(wanted, BTreeMap::from([(kept.content, vec![id])]));
        assert!(shelf.is_whole(&kept.content) && !shelf.is_whole(&lost.content));
        shelf.remove(&kept.content).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("files")).unwrap().count(), 0);
    }
}
