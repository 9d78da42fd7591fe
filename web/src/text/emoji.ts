// The emoji that are offered, with the names by which they are found (English, German). Any other can be typed or pasted.

export const QUICK = ["👍", "❤️", "😂", "🎉", "😮", "😢", "🙏", "👀"];

const TABLE = `👍 thumbsup yes gut daumen|👎 thumbsdown no schlecht|❤️ heart love herz liebe|😂 joy laugh lachen|🎉 tada party feier|😮 wow surprise staunen|😢 sad cry traurig weinen|🙏 please thanks bitte danke|👀 eyes look augen|🔥 fire feuer
😀 grin grinsen|😃 smiley|😄 smile lächeln|😁 beam strahlen|😅 sweat schwitzen|🤣 rofl|🙂 slight freundlich|🙃 upside kopfüber|😉 wink zwinkern|😊 blush|😇 angel engel|🥰 adore verliebt|😍 hearteyes|😘 kiss kuss|😋 yum lecker|😜 tongue zunge|🤔 think denken|🤨 doubt zweifel|😐 neutral|😑 blank|😶 silent still|🙄 roll augenrollen|😬 grimace|😌 relieved erleichtert|😴 sleep schlafen|🤒 ill krank|🤯 mindblown|🥳 celebrate|😎 cool|🤓 nerd|😕 confused verwirrt|😟 worried sorge|😱 scream schrei|😭 sob heulen|😤 huff|😡 angry wütend|🤬 swear fluchen|💀 skull tot|💩 poo|🤖 robot roboter|👻 ghost geist
👋 wave hallo winken|👌 ok|✌️ peace frieden|🤞 luck glück|🤙 callme|👏 clap klatschen|🙌 hooray|🤝 deal handschlag|💪 strong stark|🫡 salute|🤷 shrug achsel|🤦 facepalm
💯 hundred hundert|✅ check haken fertig|❌ cross kreuz|❗ exclamation ausrufe|❓ question frage|⚠️ warning warnung|🚀 rocket rakete|⭐ star stern|✨ sparkles funkeln|💡 idea idee|🐛 bug käfer|🔧 wrench werkzeug|🔒 lock schloss|🔑 key schlüssel|📌 pin|📎 clip klammer|📅 calendar kalender|⏰ alarm wecker|📞 phone telefon|💬 speech sprechblase|📷 camera kamera|🎵 music musik|🎁 gift geschenk|🏆 trophy pokal
☕ coffee kaffee|🍵 tea tee|🍺 beer bier|🍷 wine wein|🍞 bread brot|🥐 croissant|🍲 soup suppe|🍕 pizza|🍎 apple apfel|🍰 cake kuchen|🌱 plant pflanze|🌸 blossom blüte|🌞 sun sonne|🌧️ rain regen|❄️ snow schnee|🌈 rainbow regenbogen|🐱 cat katze|🐶 dog hund|🦊 fox fuchs|🐢 turtle schildkröte|🏠 home haus|🚲 bike fahrrad|🚆 train zug|✈️ plane flugzeug|🏔️ mountain berg|🌍 earth erde`;

export interface Emoji {
  emoji: string;
  names: string[];
}

export const EMOJI: readonly Emoji[] = TABLE.split(/[|\n]/).map((entry) => {
  const [emoji, ...names] = entry.split(" ") as [string, ...string[]];
  return { emoji, names };
});

/** Those that a name begins with `word` come before those that contain it. */
export function findEmoji(word: string, limit = EMOJI.length): Emoji[] {
  const wanted = word.toLowerCase().trim();
  if (wanted === "") return EMOJI.slice(0, limit);
  const begins = EMOJI.filter((one) => one.names.some((name) => name.startsWith(wanted)));
  const contains = EMOJI.filter((one) => !begins.includes(one) && one.names.some((name) => name.includes(wanted)));
  return [...begins, ...contains].slice(0, limit);
}
