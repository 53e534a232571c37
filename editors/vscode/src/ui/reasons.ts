// Why no suggestion is shown, in words.

const WORDS: Readonly<Record<string, string>> = {
  disabled: "Suggestions are switched off.",
  language_off: "Suggestions are off in this language: see unmask.languages.",
  inside_word: "The cursor is inside of a word.",
  text_right: "There is text to the right of the cursor.",
  in_string: "The cursor is in a string: see unmask.completion.inStrings.",
  in_comment: "The cursor is in a comment: see unmask.completion.inComments.",
  ignored: "This file is ignored: see unmask.ignore and .unmaskignore.",
  repeats_lines_above: "The model repeated the lines above.",
  nothing_to_go_by: "The file is empty: there is nothing to go by.",
  superseded: "A newer request took its place.",
  stale: "The text changed while the model worked.",
  no_longer_fits: "What the model wrote no longer fits what was typed.",
  blank: "The model wrote nothing but white space.",
  nothing_new: "What the model wrote is there already.",
  only_closers: "The model wrote nothing but closing brackets.",
  repeats_next_line: "The model wrote what the next line says.",
  engine_deadline_exceeded: "The engine took longer than unmask.completion.deadlineMs.",
  engine_overloaded: "The engine has too much to do.",
  engine_unauthorized: "The engine refused the token.",
  not_open: "The file is not known to the language server.",
  internal_error: "Something went wrong in the language server: its log says where.",
};

/** A sentence for one of the server's reasons; one that is not known here is shown as it is. */
export function explainReason(reason: string): string {
  const known = WORDS[reason];
  if (known) {
    return known;
  }
  const words = reason.replaceAll("_", " ");
  if (reason.startsWith("engine_")) {
    return `The engine could not answer: ${words.slice("engine ".length)}.`;
  }
  return reason.startsWith("empty_")
    ? `The model gave no text (${words.slice("empty ".length)}).`
    : `Dropped: ${words}.`;
}
