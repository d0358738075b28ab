// What Android's keyboards do to a text field, replayed: events in the order and with the data in which people have logged them (Gboard and SwiftKey in
// ianstormtaylor/slate#1177, david-vanderson/dvui#457, FlamedDogo99/EaglerMobile#13; a deletion in a composition is another composition: ckeditor/ckeditor5#12456).
// Every key is 229 and `Unidentified`: only what the field holds tells what was typed.

/**
 * Steps of a keyboard, and the line that a person means by them.
 *
 * - `compose TEXT`: the word being typed is now TEXT, however it came: letter by letter, swiped, corrected, or shortened by the key for deletion.
 * - `commit`: the word is done. `insert TEXT`: without a composition. `delete N`: that many characters before the cursor, each by itself.
 * - `again N`: the last N characters become the word being typed, which is how Gboard deletes in a word that was done.
 * - `replace N TEXT`: the last N characters become TEXT at once, which is how a suggestion or a spelling mark does it.
 * - `echo`: the keyboard says once more that the field has changed, and it has not.
 */
export const SEQUENCES = {
  'a word, letter by letter': [['compose g', 'compose gi', 'compose git', 'commit', 'insert  '], 'git '],
  'a word that is corrected when it ends': [['compose t', 'compose te', 'compose teh', 'compose the', 'commit', 'insert  '], 'the '],
  'a word that is corrected by deletions': [['insert t', 'insert e', 'insert h', 'delete 3', 'insert the', 'insert  '], 'the '],
  'two spaces that become a full stop': [['compose o', 'compose ok', 'commit', 'insert  ', 'delete 1', 'insert . '], 'ok. '],
  'the same as one replacement': [['compose ok', 'commit', 'insert  ', 'replace 1 . '], 'ok. '],
  'swiped words': [['compose hello', 'commit', 'insert  ', 'compose world', 'commit'], 'hello world'],
  'a suggestion that is picked': [['compose w', 'compose wo', 'compose wor', 'compose world', 'commit', 'insert  '], 'world '],
  'deleting in a word': [['compose f', 'compose fo', 'compose fop', 'compose fo', 'compose foo', 'commit'], 'foo'],
  'deleting in a word that was done': [['compose make', 'commit', 'insert  ', 'delete 1', 'again 4', 'compose mak', 'compose ma', 'compose man', 'commit'], 'man'],
  'a word that is composed again and given another ending': [['compose test', 'commit', 'again 4', 'compose tests', 'commit', 'insert  '], 'tests '],
  'a spelling mark': [['compose recieve', 'commit', 'insert  ', 'insert i', 'insert t', 'replace 10 receive it'], 'receive it'],
  'letters without suggestions, as in a password': [['insert l', 'insert s', 'insert  ', 'insert -', 'insert l', 'delete 1', 'insert a'], 'ls -a'],
  'the same change told twice': [['compose c', 'echo', 'compose cd', 'echo', 'commit', 'echo', 'insert  ', 'echo'], 'cd '],
  'signs outside of the first plane': [['insert 👍', 'insert 🎉', 'delete 1', 'insert !'], '👍!'],
};

/** Runs in the page: does to the field that has the focus what the keyboard does. */
export async function replay(page, steps) {
  await page.evaluate((all) => {
    const field = document.activeElement;
    const write = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set;
    const key = { key: 'Unidentified', code: '', keyCode: 229, which: 229, bubbles: true, cancelable: true, composed: true };
    // Where the word begins that is being typed.
    let word = null;
    const fire = (Type, type, data) => field.dispatchEvent(new Type(type, { bubbles: true, composed: true, ...data }));
    const edit = (inputType, data, from, isComposing) => {
      fire(InputEvent, 'beforeinput', { inputType, data, isComposing, cancelable: !isComposing });
      const before = field.value;
      const at = field.selectionStart;
      if (isComposing) fire(CompositionEvent, 'compositionupdate', { data });
      write.call(field, before.slice(0, from) + (data ?? '') + before.slice(at));
      const end = from + (data ?? '').length;
      field.setSelectionRange(end, end);
      fire(InputEvent, 'input', { inputType, data, isComposing });
    };
    // A browser deletes a character whole.
    const back = (count) => {
      let from = field.selectionStart;
      for (; count > 0; count -= 1) from -= [...field.value.slice(0, from)].at(-1)?.length ?? 0;
      return from;
    };
    for (const step of all) {
      const [verb, ...rest] = step.split(' ');
      const text = rest.join(' ');
      if (verb !== 'echo' && verb !== 'commit') fire(KeyboardEvent, 'keydown', key);
      if (verb === 'compose') {
        if (word === null) {
          word = field.selectionStart;
          fire(CompositionEvent, 'compositionstart', { data: '' });
        }
        edit('insertCompositionText', text, word, true);
      } else if (verb === 'commit') {
        fire(CompositionEvent, 'compositionend', { data: field.value.slice(word, field.selectionStart) });
        word = null;
      } else if (verb === 'again') {
        word = back(Number(text));
        fire(CompositionEvent, 'compositionstart', { data: field.value.slice(word, field.selectionStart) });
      } else if (verb === 'insert') {
        edit('insertText', text || ' ', field.selectionStart, false);
      } else if (verb === 'delete') {
        for (let count = Number(text); count > 0; count -= 1) edit('deleteContentBackward', null, back(1), false);
      } else if (verb === 'replace') {
        const [count, ...by] = text.split(' ');
        edit('insertReplacementText', by.join(' '), back(Number(count)), false);
      } else if (verb === 'echo') {
        fire(InputEvent, 'input', { inputType: 'insertCompositionText', data: '', isComposing: word !== null });
      }
      if (verb !== 'echo' && verb !== 'commit') fire(KeyboardEvent, 'keyup', key);
    }
  }, steps);
}

/** The line that is left of what was sent, as a program with simple editing keeps it. */
export function lineOf(sent) {
  const line = [];
  for (const character of Buffer.from(sent, 'latin1').toString('utf8')) {
    if (character === '\x7f') line.pop();
    else line.push(character);
  }
  return line.join('');
}
