/* Texts to begin with. */

export const EXAMPLES = [
  {
    name: "English", lang: "en",
    text: "Ada Lovelace met Charles Babbage in London in June 1833. A century later Alan Turing read her notes at Bletchley Park, and in 1980 the United States Department of Defense named its new language Ada after her.",
  },
  {
    name: "Deutsch", lang: "de",
    text: "Angela Merkel wurde in Hamburg geboren und wuchs in Templin auf. Nach dem Studium der Physik in Leipzig arbeitete sie an der Akademie der Wissenschaften in Berlin-Adlershof. Zwischen München und Köln fährt die Deutsche Bahn in gut vier Stunden.",
  },
  {
    name: "العربية", lang: "ar",
    text: "ولد نجيب محفوظ في القاهرة ونال جائزة نوبل في الأدب عام 1988. درس الفلسفة في جامعة القاهرة وعمل في وزارة الأوقاف في مصر. ترجمت دار نشر Doubleday رواياته إلى الإنجليزية.",
  },
  {
    name: "עברית", lang: "he",
    text: "עמוס עוז נולד בירושלים ולימד ספרות באוניברסיטת בן-גוריון בבאר שבע. הסרט Fill the Void של רמה בורשטיין הוצג בוונציה.",
  },
  {
    name: "日本語", lang: "ja",
    text: "夏目漱石は東京で生まれ、ロンドンに留学した。任天堂の本社は京都にあり、宮本茂はそこでスーパーマリオを作った。",
  },
  {
    name: "中文", lang: "zh",
    text: "鲁迅出生于浙江绍兴，曾在日本仙台学医。北京大学和清华大学都在北京市海淀区。屠呦呦于2015年获得诺贝尔奖。",
  },
  {
    name: "Emoji", lang: "en",
    text: "👩🏽‍🚀 Sally Ride flew for NASA 🇺🇸 and 👨‍👩‍👧‍👦 the Curie family lived in Paris 🗼. José 𝒜lvarez 🎉 joined Siemens in Zürich 🇨🇭❤️.",
  },
];
