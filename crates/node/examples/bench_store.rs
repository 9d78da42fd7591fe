//! Measures the store: ingest with the text index, bytes at rest, search, time to open.
//!
//! `cargo run --release -p offhook-node --example bench_store -- [ENTRIES] [DIR]`
//!
//! Texts of 200 bytes on average, words drawn by Zipf's law (exponent 1) from 50,000, by 200 authors (Zipf) in 76 rooms, as they
//! would come interleaved; 512 entries in a transaction, one each 30 seconds. The mix of queries, in equal parts: one rare word (below 1 in 10,000 entries), one common word (above 1 in
//! 10), a rare and a common word, two common words, a phrase of two words as it stands in some text, a prefix of three letters, a prefix of five
//! letters, a common word in one small room. Newest 50 each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use offhook_node::SqliteStore;
use offhook_proto::store::{EntryKey, LogNo, RoomNo, Store};

const WORDS: usize = 50_000;
const AUTHORS: usize = 200;
const ROOMS: u32 = 76;
const BATCH: usize = 512;
/// A sealed entry is its text and about this much of header, signature and seal.
const ENVELOPE_BYTES: usize = 200;
const QUERIES_PER_KIND: usize = 60;

fn main() {
    let mut args = std::env::args().skip(1);
    let entries: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let dir = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("offhook-bench-store"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    let path = dir.join("store.db");

    let mut corpus = Corpus::new(7);
    let kept = fill(&path, entries, &mut corpus);
    let started = Instant::now();
    let store = SqliteStore::open(&path).expect("the store opens");
    println!("open                 {:>9.1} ms", ms(started.elapsed()));
    search(&store, &corpus, &kept);
    println!("resident memory      {:>9.1} MiB", resident_mib());
    let started = Instant::now();
    store.check().expect("the store is whole");
    println!("check                {:>9.1} s", started.elapsed().as_secs_f64());
    if std::env::var_os("KEEP").is_none() {
        std::fs::remove_dir_all(&dir).expect("the directory can be removed");
    }
}

/// Writes the entries; returns some of the texts.
fn fill(path: &Path, entries: usize, corpus: &mut Corpus) -> Vec<String> {
    let mut store = SqliteStore::open(path).expect("the store opens");
    let mut seqs = [0u32; AUTHORS];
    let mut kept = Vec::new();
    let (mut text_bytes, mut data_bytes) = (0, 0);
    let started = Instant::now();
    let mut writing = Duration::ZERO;
    for first in (0..entries).step_by(BATCH) {
        let batch: Vec<_> = (first..entries.min(first + BATCH))
            .map(|i| (i, corpus.author(), corpus.text()))
            .collect();
        let at = Instant::now();
        store.begin().expect("a transaction begins");
        for (i, author, text) in &batch {
            seqs[*author] += 1;
            let key = EntryKey {
                log: LogNo(u32::try_from(*author).expect("small")),
                seq: seqs[*author],
            };
            let mut data = vec![0u8; ENVELOPE_BYTES];
            data.extend_from_slice(text.as_bytes());
            store.put_entry(key, &data).expect("written");
            let clock_ms = 1_700_000_000_000 + *i as u64 * 30_000;
            store.index_text(room(*author), key, clock_ms, text).expect("indexed");
            text_bytes += text.len();
            data_bytes += data.len();
            if i % 997 == 0 {
                kept.push(text.clone());
            }
        }
        store.commit().expect("committed");
        writing += at.elapsed();
    }
    drop(store);
    let size = std::fs::metadata(path).expect("there").len();
    let each = |bytes: f64| bytes / entries as f64;
    println!("entries              {entries:>9}");
    println!(
        "ingest with index    {:>9.0} entries/s",
        entries as f64 / writing.as_secs_f64()
    );
    println!("wall                 {:>9.1} s", started.elapsed().as_secs_f64());
    println!("text                 {:>9.1} B each", each(text_bytes as f64));
    println!("entry as given       {:>9.1} B each", each(data_bytes as f64));
    println!("file                 {:>9.1} B each", each(size as f64));
    println!(
        "store's share        {:>9.1} B each",
        each(size as f64 - data_bytes as f64)
    );
    kept
}

fn room(author: usize) -> RoomNo {
    RoomNo(u32::try_from(author).expect("small") % ROOMS)
}

/// Words, and the room to look in.
type Query = (String, Option<RoomNo>);

fn search(store: &SqliteStore, corpus: &Corpus, kept: &[String]) {
    let mut draw = Draw(99);
    let mut pick = |from: usize, to: usize| corpus.words[from + draw.below(to - from)].clone();
    let mut kinds: Vec<(&str, Vec<Query>)> = Vec::new();
    let mut add = |name, make: &mut dyn FnMut(usize) -> Query| {
        kinds.push((name, (0..QUERIES_PER_KIND).map(make).collect()));
    };
    add("rare word", &mut |_| (pick(30_000, WORDS), None));
    add("common word", &mut |_| (pick(0, 20), None));
    add("rare AND common", &mut |_| {
        (format!("{} {}", pick(30_000, WORDS), pick(0, 20)), None)
    });
    add("common AND common", &mut |_| {
        (format!("{} {}", pick(0, 20), pick(0, 20)), None)
    });
    add("phrase", &mut |i| {
        let words: Vec<&str> = kept[i * 31 % kept.len()].split(' ').collect();
        let at = i % (words.len() - 1);
        (format!("\"{} {}\"", words[at], words[at + 1]), None)
    });
    add("prefix of 3", &mut |_| (format!("{}*", &pick(0, WORDS)[..3]), None));
    add("prefix of 5", &mut |_| (format!("{}*", &pick(2_000, WORDS)[..5]), None));
    add("common in small room", &mut |i| {
        (pick(0, 20), Some(RoomNo(40 + i as u32 % 30)))
    });

    let mut all = Vec::new();
    for (name, queries) in &kinds {
        let mut times = Vec::new();
        let mut hits = 0;
        for (query, room) in queries {
            let started = Instant::now();
            hits += store.search(query, *room, 50).expect("searched").len();
            times.push(ms(started.elapsed()));
        }
        all.extend_from_slice(&times);
        report(name, &mut times, hits / queries.len());
    }
    report("ALL", &mut all, 0);
}

fn report(name: &str, times: &mut [f64], hits: usize) {
    times.sort_by(f64::total_cmp);
    let at = |q: usize| times[(times.len() * q / 100).min(times.len() - 1)];
    println!(
        "search {name:<21} p50 {:>7.2} ms  p95 {:>7.2} ms  max {:>7.2} ms  hits {hits}",
        at(50),
        at(95),
        times[times.len() - 1]
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or_default();
    kib / 1024.0
}

/// Words that look like words, and texts of them.
struct Corpus {
    words: Vec<String>,
    /// Cumulated weights: word `i` has the weight `1/(i+1)`.
    weights: Vec<f64>,
    author_weights: Vec<f64>,
    draw: Draw,
}

impl Corpus {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let mut seen = std::collections::BTreeSet::new();
        let mut words = Vec::new();
        while words.len() < WORDS {
            let word = draw.word(words.len());
            if seen.insert(word.clone()) {
                words.push(word);
            }
        }
        Self {
            words,
            weights: zipf(WORDS),
            author_weights: zipf(AUTHORS),
            draw,
        }
    }

    fn author(&mut self) -> usize {
        self.draw.weighted(&self.author_weights)
    }

    fn text(&mut self) -> String {
        let length = 100 + self.draw.below(200);
        let mut text = String::new();
        while text.len() < length {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&self.words[self.draw.weighted(&self.weights)]);
        }
        text
    }
}

fn zipf(n: usize) -> Vec<f64> {
    let mut sum = 0.0;
    (1..=n)
        .map(|i| {
            sum += 1.0 / i as f64;
            sum
        })
        .collect()
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn weighted(&mut self, cumulated: &[f64]) -> usize {
        let total = cumulated[cumulated.len() - 1];
        let at = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        cumulated
            .partition_point(|weight| *weight <= at)
            .min(cumulated.len() - 1)
    }

    /// Frequent words are short, as in languages.
    fn word(&mut self, rank: usize) -> String {
        let syllables = 1 + (rank + 10).ilog10() as usize / 2 + self.below(2) + usize::from(rank > 1_000);
        let mut word = String::new();
        for _ in 0..syllables {
            word.push(char::from(b"bcdfghjklmnprstvwz"[self.below(18)]));
            word.push(char::from(b"aeiou"[self.below(5)]));
            if self.below(3) == 0 {
                word.push(char::from(b"lmnrst"[self.below(6)]));
            }
        }
        while word.len() < 3 {
            word.push('n');
        }
        while rank > 2_000 && word.len() < 5 {
            word.push('a');
        }
        word
    }
}
