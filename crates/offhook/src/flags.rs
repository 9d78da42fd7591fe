//! The command line as typed (clap): raw words and numbers, nothing looked up. What they mean is resolved where they are used.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use offhook_node::relay::RelayOptions;

use crate::access::Scope;
use crate::config;
use crate::http::Listen;
use crate::proto::overlay::ledger::Limits;

/// How the program is called.
#[derive(Debug, Parser)]
#[command(
    name = "offhook",
    version,
    about = "Group chat with nobody in the middle",
    long_about = "Group chat with nobody in the middle. Every person runs one node; `offhook up` starts it.",
    after_help = "R is a room's name or the beginning of its id; PERSON a name, petname or the beginning of a key; ID an entry's id, \
                  as `offhook log --ids` shows it.",
    disable_help_subcommand = true
)]
pub(crate) struct Flags {
    /// Folder that holds everything of one node [default: ~/.local/share/offhook]
    #[arg(long, global = true, value_name = "DIR", env = "OFFHOOK_HOME", hide_env = true)]
    pub(crate) home: Option<PathBuf>,
    /// Print JSON on stdout: one object, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Configuration file [default: ~/.config/offhook/config.toml; for --home, config.toml in it]
    #[arg(long, global = true, value_name = "FILE", env = "OFFHOOK_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the node until Ctrl-C; with an invite, join its room
    Up(Up),
    /// Run a node that keeps sealed entries for others, and cannot read them
    Keeper(Keeper),
    /// Run a relay and nothing else, until Ctrl-C: it passes sealed packets on between nodes that cannot reach each other
    Relay(RelayFlags),
    /// Open the browser client, signed in
    Open {
        /// Only print the address; it signs in once, within an hour
        #[arg(long)]
        print: bool,
    },
    /// Make, list and revoke the tokens of programs
    #[command(subcommand)]
    Token(TokenVerb),
    /// Let IRC clients in on this machine, or stop that
    #[command(subcommand)]
    Irc(IrcVerb),
    /// Show and check how the node is set up
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Show this node, its rooms and its peers
    Status,
    /// Say what works on this network, what does not, and what to try
    Doctor {
        /// Also whether this person can be reached
        person: Option<String>,
    },
    /// Show the lines to peers, and why each is held
    Lines,
    /// Show what a gateway sees of this node: every flow, and who waits for one
    Flows(FlowsFlags),
    /// Make, list and change rooms
    #[command(subcommand)]
    Room(RoomVerb),
    /// Make an invite to a room: a link, and a QR code on a terminal; or words to be read aloud
    Invite(Invite),
    /// Enter a room with an invite
    Join(Join),
    /// Show, name, verify and block the people you know
    #[command(subcommand)]
    Contact(ContactVerb),
    /// Show who is near on this network or machine and who of them invites you; invite them, or answer
    Near(Near),
    /// Open the room of two with a contact
    Chat {
        /// The contact
        person: String,
    },
    /// Say something in a room
    Send(Send),
    /// List and fetch the files of a message
    #[command(subcommand)]
    File(FileVerb),
    /// Give an own message another text
    Edit {
        /// The message
        id: String,
        /// Its new text, or - to read it from stdin
        text: String,
    },
    /// Take a message away, everywhere
    Delete {
        /// The message
        id: String,
    },
    /// React to a message
    React {
        /// The message
        id: String,
        /// One emoji
        emoji: String,
        /// Withdraw the reaction
        #[arg(long)]
        off: bool,
    },
    /// Answer a message
    Reply {
        /// The message
        id: String,
        /// The answer, or - to read it from stdin
        text: String,
        /// The same client id again says nothing twice
        #[arg(long, value_name = "ANY")]
        client_id: Option<String>,
    },
    /// Show the newest of a room
    Log(Log),
    /// Show what is said as it comes, until Ctrl-C
    Tail(Tail),
    /// Show where an entry is, and why not further
    Where {
        /// The entry
        id: String,
    },
    /// Find messages: words, "phrases", beginnings*
    Search(Search),
    /// Print all of a room as JSON lines, oldest first
    Export {
        /// The room
        #[arg(value_name = "R")]
        room: String,
    },
    /// Show who you are
    #[command(subcommand)]
    Identity(IdentityVerb),
    /// Write everything of this node into one sealed file
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
        /// Also the files of messages that are here; without, a restored home fetches them again
        #[arg(long)]
        with_files: bool,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Make this home from a backup, or prove that a backup opens
    Restore {
        /// The backup
        file: PathBuf,
        /// Only open it and count what is in it; writes nothing
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Print the description of the local API (OpenAPI 3.1)
    Openapi,
    /// Run a small phone system for SIP phones
    #[command(subcommand)]
    Exchange(ExchangeVerb),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExchangeVerb {
    /// Run the exchange until Ctrl-C
    Up(ExchangeUp),
    /// Make, list and remove accounts for phones
    #[command(subcommand)]
    User(UserVerb),
    /// Show the calls of this moment
    Calls,
    /// Show the registered phones
    Phones,
    /// Show what calls there were, newest first
    Records {
        /// How many
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
    },
    /// Print the metrics in Prometheus' text format
    Metrics,
    /// Show the instances of the cluster, who speaks for what, and who stands by
    Members,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Make an account; its password is shown this once
    Add {
        /// Its name: 1 to 32 letters, digits, '-', '_' or '.'
        name: String,
        /// The domain of all accounts, before the first one is made [default: offhook]
        #[arg(long, value_name = "D")]
        domain: Option<String>,
    },
    /// List the accounts
    List,
    /// Remove an account and forget its phones
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExchangeUp {
    /// Address for SIP and media [default: all]
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Option<IpAddr>,
    /// Address that phones are told, where it is not the one of the default route
    #[arg(long, value_name = "IP")]
    pub(crate) advertise: Option<IpAddr>,
    /// Port for SIP over UDP and TCP
    #[arg(long, default_value_t = 5060)]
    pub(crate) port: u16,
    /// Port for SIP over TLS; 0 switches it off
    #[arg(long, default_value_t = 5061, value_name = "PORT")]
    pub(crate) tls_port: u16,
    /// The domain of all accounts, before the first one is made [default: offhook]
    #[arg(long, value_name = "D")]
    pub(crate) domain: Option<String>,
    /// First port for media; 4,000 from there are used
    #[arg(long, default_value_t = 30_000, value_name = "PORT")]
    pub(crate) media_port: u16,
    /// Let phones send sound to each other directly, not through the exchange
    #[arg(long)]
    pub(crate) direct_media: bool,
    /// Serve Prometheus' metrics here, as http://IP:PORT/metrics
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Be one instance of a cluster: a server of its engine, as nats://HOST:PORT; the nearest first
    #[arg(long, value_name = "URL")]
    pub(crate) engine: Vec<String>,
    /// Failure domain of this instance, such as its data centre [default: the machine's name]
    #[arg(long, value_name = "NAME", requires = "engine")]
    pub(crate) site: Option<String>,
    /// What this instance does, of calls, standby and witness
    #[arg(
        long,
        value_name = "ROLES",
        value_delimiter = ',',
        default_value = "calls,standby,witness"
    )]
    pub(crate) roles: Vec<String>,
    /// Address on this network that phones use; it moves to another machine when this one dies
    #[arg(long, value_name = "IPV4", requires = "engine")]
    pub(crate) movable: Option<Ipv4Addr>,
    /// UDP port on which instances watch each other
    #[arg(long, default_value_t = 5070, value_name = "PORT")]
    pub(crate) detector_port: u16,
    /// Port on which the engine's servers show their settings
    #[arg(long, default_value_t = 8222, value_name = "PORT")]
    pub(crate) engine_monitor_port: u16,
    /// How often the engine keeps what is durable; less than 3 is for trials
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) engine_copies: usize,
}

#[derive(Debug, Default, Args)]
pub(crate) struct Up {
    /// Join this room once up
    pub(crate) invite: Option<String>,
    /// The name others see [default: the login name]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// Where to listen [default: every address, the port of the last run]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to speak HTTP on this machine: a port, 127.0.0.1:PORT, or off [default: the port of the last run]
    #[arg(long, value_name = "PORT")]
    pub(crate) http: Option<Listen>,
    /// Nobody watches: no QR code, no browser
    #[arg(long)]
    pub(crate) headless: bool,
    /// Use no public relay of the iroh project
    #[arg(long)]
    pub(crate) no_public_infrastructure: bool,
    /// Also keep sealed entries for others' rooms
    #[arg(long)]
    pub(crate) keeper: bool,
    /// Keep own addresses, sealed, in the public Mainline DHT, and look there for those who are found nowhere else
    #[arg(long)]
    pub(crate) dht: bool,
    /// With --dht: begin at this host instead of the public ones; several times for several
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) dht_bootstrap: Vec<String>,
    /// Tell others that they reach this node here, too: a forwarded port; several times for several
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) announce: Vec<SocketAddr>,
    /// Use this relay; several times for several
    #[arg(long, value_name = "URL")]
    pub(crate) use_relay: Vec<String>,
    /// Serve as a relay, too, for members who cannot reach each other
    #[arg(long)]
    pub(crate) relay: bool,
    /// The most flows (connections, as a gateway counts them) that this node may open, 8 or more [default: 60]
    #[arg(long, value_name = "N", value_parser = flow_cap)]
    pub(crate) flows: Option<u16>,
    /// So many of them for every day, the rest for what somebody waits for [default: two thirds]
    #[arg(long, value_name = "N")]
    pub(crate) flows_everyday: Option<u16>,
    /// The largest file that is taken in to be sent; the room has its own limit [default: 64 GB]
    #[arg(long, value_name = "SIZE", value_parser = config::size)]
    pub(crate) files_send_max: Option<u64>,
    /// The largest file that comes unasked; 0 for none [default: 1 MB]
    #[arg(long, value_name = "SIZE", value_parser = config::size)]
    pub(crate) files_unasked_max: Option<u64>,
    /// Install and start the node as a service of this user (systemd), instead of running it here
    #[arg(long, conflicts_with = "invite")]
    pub(crate) service: bool,
    #[command(flatten)]
    pub(crate) relay_options: UpRelay,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show what `offhook up` would be set up with
    Show {
        /// Say where each value comes from: flag, environment, file or default
        #[arg(long)]
        origin: bool,
    },
    /// Read the configuration and say what is wrong with it
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IrcVerb {
    /// Speak IRC on 127.0.0.1 and on a socket in the home, also after a restart
    On {
        /// The port
        #[arg(long, default_value_t = crate::irc::PORT, value_name = "N")]
        port: u16,
    },
    /// Speak IRC no more
    Off,
    /// Show whether IRC is spoken, and where
    Status,
}

/// How `up --relay` serves.
#[derive(Debug, Default, Args)]
pub(crate) struct UpRelay {
    /// With --relay: where to listen, TCP [default: every address, port 3340]
    #[arg(long, value_name = "IP:PORT", requires = "relay")]
    pub(crate) relay_listen: Option<SocketAddr>,
    /// With --relay: how others reach it [default: this machine's address]
    #[arg(long, value_name = "URL", requires = "relay")]
    pub(crate) relay_url: Option<String>,
}

impl UpRelay {
    /// As the node takes them.
    pub(crate) fn options(&self) -> RelayOptions {
        let usual = RelayOptions::default();
        RelayOptions {
            listen: self.relay_listen.unwrap_or(usual.listen),
            url: self.relay_url.clone(),
            ..usual
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RelayFlags {
    /// Where to listen, TCP [default: every address, port 3340]; UDP port 7842 tells nodes their addresses
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// How others reach it [default: this machine's address]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Bytes a second taken from each node
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub(crate) client_rate: NonZeroU32,
    /// Connections of all nodes at the same time
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) connections: usize,
}

impl RelayFlags {
    /// As the relay takes them.
    pub(crate) fn options(&self) -> RelayOptions {
        let usual = RelayOptions::default();
        RelayOptions {
            listen: self.listen.unwrap_or(usual.listen),
            url: self.url.clone(),
            client_bytes_per_s: self.client_rate,
            connections_max: self.connections,
            ..usual
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Keeper {
    /// The name others see [default: the login name]
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// Where to listen [default: every address, the port of the last run]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Ask no host but peers, ever: no relay, no look-up
    #[arg(long)]
    pub(crate) no_public_infrastructure: bool,
    /// How many rooms at most
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) rooms: u32,
    /// How many MiB for each room at most
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub(crate) room_mib: u32,
    /// For how many days messages are kept
    #[arg(long, default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=365))]
    pub(crate) days: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeepersVerb {
    /// Name a keeper; its owner has the address from `offhook keeper`
    Add {
        /// The keeper's address
        address: String,
    },
    /// Take a keeper away
    Remove {
        /// The beginning of the keeper's device
        keeper: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FlowsFlags {
    /// Write the flows to this file, a JSON line a second, until Ctrl-C
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// End the recording after so many seconds
    #[arg(long, requires = "record", value_name = "SECS")]
    pub(crate) seconds: Option<u64>,
    /// Draw flows over time to this SVG: the recording, or the node's last hour
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Draw this recording
    #[arg(long, requires = "plot", conflicts_with = "record", value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}

/// A cap that a node can work with.
pub(crate) fn flow_cap(text: &str) -> Result<u16, String> {
    let cap: u16 = text.parse().map_err(|_| format!("`{text}` is no number of flows"))?;
    Limits::new(cap, None).map(|_| cap).map_err(|error| error.to_string())
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token for a program; it is shown once
    New {
        /// What it is called
        name: String,
        /// What it allows: read, send, admin, metrics, with commas between
        #[arg(long, value_name = "LIST", value_delimiter = ',', required = true)]
        scope: Vec<Scope>,
    },
    /// List tokens and the sessions of browsers
    List,
    /// Make a token or a session worth nothing
    Revoke {
        /// A token's name, or the id of a token or session
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoomVerb {
    /// Make a room
    New {
        /// Its name
        name: String,
        /// What newcomers may read of what was said before: all, none, or days such as 30d
        #[arg(long, default_value = "all", value_name = "POLICY")]
        history: String,
    },
    /// List the rooms, the most recently active first
    List,
    /// List a room's members
    Members {
        /// The room
        #[arg(value_name = "R")]
        room: String,
    },
    /// Give a member a role: reader, member, moderator, admin or owner
    Role {
        /// The room
        #[arg(value_name = "R")]
        room: String,
        /// The member
        person: String,
        /// The role
        role: String,
    },
    /// Remove a member; what is said from then on they cannot read
    Remove {
        /// The room
        #[arg(value_name = "R")]
        room: String,
        /// The member
        person: String,
    },
    /// Leave a room; what was said stays readable here
    Leave {
        /// The room
        #[arg(value_name = "R")]
        room: String,
    },
    /// List a room's keepers, name one, or take one away
    Keepers {
        /// The room
        #[arg(value_name = "R")]
        room: String,
        #[command(subcommand)]
        verb: Option<KeepersVerb>,
    },
    /// Show how large a file the room takes, or change that
    Limit {
        /// The room
        #[arg(value_name = "R")]
        room: String,
        /// The largest file: bytes, or as `20 MB`; 0 for no files
        #[arg(value_name = "SIZE", value_parser = config::size)]
        size: Option<u64>,
    },
    /// Give a room another name
    Rename {
        /// The room
        #[arg(value_name = "R")]
        room: String,
        /// Its new name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// The room
    #[arg(value_name = "R")]
    pub(crate) room: String,
    /// How long it holds: a number and s, m, h, d or w
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = seconds)]
    pub(crate) expires: u64,
    /// How many persons may use it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// The role that it gives: reader, member, moderator, admin or owner
    #[arg(long, default_value = "member")]
    pub(crate) role: String,
    /// Only this very node lets in: strict about the number of uses
    #[arg(long)]
    pub(crate) only_me: bool,
    /// Words instead of a link, to be read aloud: lines of eight
    #[arg(long)]
    pub(crate) words: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The invite: a link, or words as they were read aloud
    #[arg(required = true, value_name = "INVITE")]
    pub(crate) invite: Vec<String>,
    /// How long to wait until the room can be read; 0 does not wait
    #[arg(long, default_value_t = 30, value_name = "SECS")]
    pub(crate) wait: u64,
}

/// `offhook near`.
#[derive(Debug, Args)]
pub(crate) struct Near {
    #[command(subcommand)]
    pub(crate) verb: Option<NearVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NearVerb {
    /// Invite somebody nearby, known or not; they are asked, and nothing happens before they say yes
    Invite {
        /// A device's id or the beginning of one, or the name that it claims
        device: String,
        /// The room [default: a room of two, made when they say yes]
        #[arg(value_name = "R")]
        room: Option<String>,
    },
    /// Say yes to somebody nearby who invites you, and join
    Accept {
        /// Which invitation, by its id or by who made it [default: the only one]
        request: Option<String>,
    },
    /// Say no to somebody nearby who invites you; they are told
    Decline {
        /// Which invitation [default: the only one]
        request: Option<String>,
    },
    /// Say no and hear nothing of that person any more; they are not told
    Block {
        /// Which invitation [default: the only one]
        request: Option<String>,
    },
    /// Be seen by name by strangers nearby, and take their invitations
    Show,
    /// Be neither seen by name nor invited by strangers nearby; those who share a room with you still find this node
    Hide,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContactVerb {
    /// List everybody known from any room
    List,
    /// Give somebody a name that only you see; "" takes it away
    Name {
        /// The contact
        person: String,
        /// The name
        petname: String,
    },
    /// Compare safety numbers, and so know that nobody stands between you
    Verify {
        /// The contact
        person: String,
        /// The 60 digits as they read them to you, instead of being asked
        #[arg(long, value_name = "DIGITS")]
        number: Option<String>,
        /// Take the mark back
        #[arg(long, conflicts_with = "number")]
        undo: bool,
    },
    /// Hide what somebody says, in every room, here only
    Block {
        /// The contact
        person: String,
        /// Unblock
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The room
    #[arg(value_name = "R")]
    pub(crate) room: String,
    /// What to say, or - to read it from stdin
    #[arg(required_unless_present = "file")]
    pub(crate) text: Option<String>,
    /// Send this file with it; several times for several, at most four
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// The same client id again says nothing twice
    #[arg(long, value_name = "ANY")]
    pub(crate) client_id: Option<String>,
    /// Wait up to so many seconds until two others hold it: then it is safe to go offline
    #[arg(long, default_value_t = 0, value_name = "SECS")]
    pub(crate) wait: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileVerb {
    /// Show the files of a message, and how much of each is here
    List {
        /// The message
        id: String,
    },
    /// Fetch a file from whoever has it, and write it to this folder
    Get(FileGet),
}

#[derive(Debug, Args)]
pub(crate) struct FileGet {
    /// The message
    pub(crate) id: String,
    /// Which of its files, where it carries several
    pub(crate) name: Option<String>,
    /// Where to write it: a file, a folder, or - for stdout [default: its own name, here]
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// How many seconds to wait for it; the node goes on after that
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The room
    #[arg(value_name = "R")]
    pub(crate) room: String,
    /// How many lines
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) limit: usize,
    /// Only what stands before this entry
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<String>,
    /// Show the entries' ids
    #[arg(long)]
    pub(crate) ids: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The room [default: all]
    #[arg(value_name = "R")]
    pub(crate) room: Option<String>,
    /// How many lines that are here already to show first (of one room)
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) limit: usize,
    /// Show entries again when they change: edited, deleted, reacted to, delivered
    #[arg(long)]
    pub(crate) changes: bool,
    /// Show the entries' ids
    #[arg(long)]
    pub(crate) ids: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// What to look for: all words must be there
    #[arg(required = true)]
    pub(crate) words: Vec<String>,
    /// Only in this room
    #[arg(long, value_name = "R")]
    pub(crate) room: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) limit: usize,
    /// Show the entries' ids
    #[arg(long)]
    pub(crate) ids: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityVerb {
    /// Show the 24 words that are you: write them on paper and show them to nobody
    Phrase,
}

#[derive(Debug, Args)]
pub(crate) struct Passphrase {
    /// Read the passphrase from this file instead of asking (or set OFFHOOK_PASSPHRASE)
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// A span of time: a number and a unit.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is no span of time; say for example 90m, 24h, 7d or 2w");
    let unit = text.chars().last().ok_or_else(bad)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        'w' => 7 * 24 * 3600,
        _ => return Err(bad()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    count.checked_mul(unit_s).filter(|s| *s > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn spans_of_time() {
        assert_eq!(seconds("90m"), Ok(5400));
        assert_eq!(seconds("7d"), Ok(7 * 86400));
        for bad in [
            "",
            "7",
            "d",
            "0d",
            "7 d",
            "-1d",
            "99999999999999999999w",
            "9999999999999999w",
            "7ü",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
