# What the programs of the recordings find: files with fixed contents, names and dates. Run by bash in an empty folder.
set -e
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.org GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.org
mkdir -p project/src project/docs home/.config/htop home/.config/mc
cd project

cat > src/main.rs <<'TEXT'
//! Counts words, in any script.

use std::collections::HashMap;
use std::io::{self, BufRead};

/// How often each word occurs.
fn count(input: impl BufRead) -> io::Result<HashMap<String, usize>> {
	let mut words = HashMap::new();
	for line in input.lines() {
		for word in line?.split_whitespace() {
			*words.entry(word.to_lowercase()).or_insert(0) += 1;
		}
	}
	Ok(words)
}

fn main() -> io::Result<()> {
	let words = count(io::stdin().lock())?;
	let mut sorted: Vec<_> = words.into_iter().collect();
	sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
	for (word, times) in sorted.iter().take(20) {
		println!("{times:>6}  {word}");
	}
	Ok(())
}
TEXT
cat > Cargo.toml <<'TEXT'
[package]
name = "words"
version = "0.1.0"
edition = "2021"
TEXT
cat > README.md <<'TEXT'
# words

Counts words in **any** script: `cat book | words`.

- Latin: naïve café, e + combining acute: é
- Chinese and Japanese: 世界 日本語のテキスト
- Korean: 한국어 문장
- Cyrillic, Greek: Привет, мир — Καλημέρα
- Emoji: 😀 🎉 🚀
TEXT
cat > docs/wide.txt <<'TEXT'
日本語の長い行はとても長いので、端末の右端で折り返されなければなりません。これは八十桁よりも長い行です。続きがここにあります。
中文字符每个占两列：你好，世界！这一行也很长，长到必须在窗口的右边缘换行，看看光标在哪里。
한국어 문장도 두 칸씩 차지합니다. 이 줄은 화면보다 길어서 다음 줄로 넘어갑니다. 정말로 그렇습니다.
Mixed: abc世界def日本ghi한국 😀 jkl 🎉 mno 🚀 pqr
Combining: e + ́ = é, n + ̃ = ñ, stacked ậ, Thai: ภาษาไทย ที่นี่ กำลัง
Box: ┌──────┬──────┐ │ a    │ b    │ └──────┴──────┘ ░▒▓█
Latin: Größe, naïve, Ærø, Łódź — “quotes” … ½ × ≤ ∞
TEXT
for n in $(seq 1 400); do
	case $((n % 7)) in 0) level='\033[31mERROR' ;; 3) level='\033[33mWARN ' ;; *) level='\033[32mINFO ' ;; esac
	printf '\033[2m2026-11-05T12:%02d:%02d\033[0m %b\033[0m request %d handled in %d ms by worker %d\n' $((n / 60)) $((n % 60)) "$level" $n $((n * 37 % 91)) $((n % 8))
done > docs/color.log
sed 's/\x1b\[[0-9;]*m//g' docs/color.log > docs/plain.log
printf 'name\tamount\tcity\nAda\t12\tLondon\nGrace\t9\tNew York\n林\t7\t東京\n' > docs/table.tsv
printf '\000\001\002\033[31m\200\377binary\n' > docs/data.bin
cat > docs/page.html <<'TEXT'
<html><head><title>A page</title></head><body><h1>A page</h1><p>With <b>bold</b>, <i>italic</i>, <a href="other.html">a link</a> and 日本語.</p>
<table border="1"><tr><th>Name</th><th>City</th></tr><tr><td>Ada</td><td>London</td></tr><tr><td>林</td><td>東京</td></tr></table>
<ul><li>one<li>two<li>three</ul><form><input type="text" name="q"> <input type="submit" value="Go"></form>
<pre>  preformatted
    text</pre></body></html>
TEXT
cat > docs/colors.sh <<'TEXT'
for n in $(seq 0 255); do printf '\033[48;5;%dm %3d \033[0m' $n $n; [ $(((n + 1) % 16)) = 0 ] && echo; done
for n in $(seq 0 2 76); do printf '\033[48;2;%d;%d;%dm\033[38;2;%d;%d;%dm+\033[0m' $((n * 3)) $((255 - n * 3)) 128 255 $((n * 3)) 0; done; echo
for a in 1 2 3 4 5 7 8 9 21 53 '4:3' '4:4;58:5:196' '1;3;4;9'; do printf '\033[%sm attribute %s \033[0m ' "$a" "$a"; done; echo
TEXT
cat > docs/sequences.sh <<'TEXT'
# What few programs use together, by hand.
say() { printf '%b' "$1"; sleep 0.05; }
say '\033]0;icon and title\007\033]2;only the title \342\202\254\033\\'
say '\033]8;id=1;https://example.org/a\033\\a link\033]8;;\033\\ and text\r\n'
say '\033]7;file://machine/tmp/rec/project\033\\\033]133;A\033\\$ \033]133;B\033\\'
say '\033[?2004h\033[?1007h\033[20h\033[?1004h\033[?1002h\033[?1006h\033[?1h\033=\033[5 q\033[>1u\033[22;0t'
say '\033[?2026h\033[5;10Hframe one\033[6;10Hin one piece\033[?2026l'
say '\033[8;16r\033[8;1H\r\n1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9\r\n10\033[9;1H\033[2L\033[3M\033[11;1H\033M\033[S\033[2T\033[r'
say '\033[18;1H0123456789\033[18;3H\033[4@\033[18;12H\033[2P\033[3X\033[4h+++\033[4l\033[18;30H\033[1K'
say '\033[19;75Hwraps around\033[?7l\033[20;75Hdoes not wrap\033[?7h'
say '\033[21;1H\033(0lqqqk\033(B \033)0\016x\017 \033[21;20He\xcc\x81 \xe7\x95\x8c\xf0\x9f\x98\x80'
say '\0337\033[1;31m\033[22;5Hred\0338same place\033[s\033[3;70Hthere\033[uback'
say '\033[?6h\033[4;10r\033[1;1Horigin\033[20;1Hbottom\033[?6l\033[r'
say '\033[H\033H\033[3g\033[1;9H\033H\033[1;33H\033H\r\tt1\tt2\tt3\033[1;60H\033[Zb'
say '\033[2;3Hx\033[5b\033[2;20Habc\033[2D\033[1C\033[3;5f\033[2dv\033[7`h\033[2ar\033[e'
say '\033[?1049h\033[2J\033[Halternate\033[44m\033[K\r\n\033[2K\033[0m\033[?25l\033[?2026$p\033[6n\033[c'
say '\033[?25h\033[?1049l\033[24;1Hmain again\033[23;0t\033[<u'
say '\033[?1015h\033[20l\033[?1005h\033[?1003h\033[?9h\033[?1007l\033[?1002;1006;1004;2004;1l\033>\033[0 q'
TEXT

git init -q -b main .
commit() { export GIT_AUTHOR_DATE="2026-10-0$1T12:00:00Z" GIT_COMMITTER_DATE="2026-10-0$1T12:00:00Z"; git add -A; git commit -q -m "$2"; }
commit 1 'Count words'
git checkout -q -b wide; echo 'wide = true' >> Cargo.toml; commit 2 'Words of wide characters: 世界'
git checkout -q main; echo '- Thai: ภาษาไทย' >> README.md; commit 3 'Say that Thai works'
GIT_AUTHOR_DATE=2026-10-04T12:00:00Z GIT_COMMITTER_DATE=2026-10-04T12:00:00Z git merge -q --no-ff -m 'Merge wide characters 🎉' wide
git checkout -q -b fix HEAD~1; sed -i 's/take(20)/take(30)/' src/main.rs; commit 5 'Show thirty words'
git checkout -q main; GIT_AUTHOR_DATE=2026-10-06T12:00:00Z GIT_COMMITTER_DATE=2026-10-06T12:00:00Z git merge -q --no-ff -m 'Merge the fix' fix; git tag v0.2
for n in 1 2 3 4 5 6 7 8 9; do echo "line $n" >> docs/notes.txt; commit $n "Note $n: a longer subject that says what is now true of the words"; done
sed -i 's/split_whitespace()/split(char::is_whitespace)/; s/>6/>8/' src/main.rs
find . -path ./.git -prune -o -exec touch -d 2026-10-10T12:00:00Z {} +

cd ../home
cat > .tmux.conf <<'TEXT'
set -g status-right '%H:%M'
set -g mouse on
set -g default-command 'bash'
TEXT
printf 'set nocompatible ruler showcmd hlsearch incsearch number mouse=a laststatus=2\nsyntax on\nfiletype plugin indent on\n' > .vimrc
printf 'startup_message off\nhardstatus alwayslastline\nhardstatus string "%%{= kG}%%n %%t %%{= kw}%%w"\nshell "bash"\n' > .screenrc
printf '[user]\n\tname = Ada\n\temail = ada@example.org\n[color]\n\tui = always\n' > .gitconfig
printf '%s\n' 'PS1="\[\e[32m\]user@machine\[\e[0m\]:\[\e[34m\]\w\[\e[0m\]\$ "' "alias ls='ls --color=always'" 'HISTFILE=' > .bashrc

# The coding agents talk to the stand-in for a model, and to nobody else.
mkdir -p .codex .gemini .config/opencode .pi/agent
cat > .codex/config.toml <<'TEXT'
model = "stand-in"
model_provider = "stand-in"
check_for_update_on_startup = false
approval_policy = "on-request"
sandbox_mode = "read-only"
[model_providers.stand-in]
name = "Stand-in"
base_url = "http://127.0.0.1:4141/v1"
wire_api = "responses"
[projects."/tmp/rec/project"]
trust_level = "trusted"
[analytics]
enabled = false
TEXT
cat > .gemini/settings.json <<'TEXT'
{ "security": { "auth": { "selectedType": "gemini-api-key" } }, "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false }, "privacy": { "usageStatisticsEnabled": false }, "model": { "name": "gemini-2.5-flash" } }
TEXT
cat > .config/opencode/opencode.json <<'TEXT'
{ "autoupdate": false, "share": "disabled", "model": "stand-in/stand-in", "permission": { "bash": "ask" },
  "provider": { "stand-in": { "npm": "@ai-sdk/openai-compatible", "name": "Stand-in", "options": { "baseURL": "http://127.0.0.1:4141/v1", "apiKey": "none" }, "models": { "stand-in": { "name": "Stand-in" } } } } }
TEXT
cat > .pi/agent/models.json <<'TEXT'
{ "providers": { "stand-in": { "baseUrl": "http://127.0.0.1:4141/v1", "api": "openai-completions", "apiKey": "none", "models": [{ "id": "stand-in" }] } } }
TEXT
