// Asks for an instruction, with those given before; the engine reads the code while the user types.

import * as vscode from "vscode";

const HISTORY_KEY = "unmask.instructions";
const MAX_HISTORY = 50;
const WARM_DELAY_MS = 250;

interface Entry extends vscode.QuickPickItem {
  readonly instruction: string;
  readonly isTyped: boolean;
}

export class InstructionPrompt {
  constructor(private readonly memory: vscode.Memento) {}

  /** The instruction, or undefined if the user left. `warm` is called at once and whenever typing pauses. */
  async ask(title: string, warm: (instruction: string) => void): Promise<string | undefined> {
    const picker = vscode.window.createQuickPick<Entry>();
    picker.title = title;
    picker.placeholder = "What should be changed? For example: handle an empty list";
    picker.ignoreFocusOut = true;
    let timer: NodeJS.Timeout | undefined;
    let activeFor = "";
    const refresh = (value: string): void => {
      picker.items = this.entries(value);
      clearTimeout(timer);
      timer = setTimeout(() => warm(value.trim()), WARM_DELAY_MS);
    };
    picker.items = this.entries("");
    warm("");
    try {
      const instruction = await new Promise<string | undefined>((resolve) => {
        picker.onDidChangeValue(refresh);
        picker.onDidChangeActive(() => {
          activeFor = picker.value;
        });
        picker.onDidHide(() => resolve(undefined));
        picker.onDidAccept(() => {
          // The list lags behind the keys: an entry counts only if it was made for what stands in the field now.
          const active = picker.activeItems[0];
          const isEntry = active && !active.isTyped && activeFor === picker.value;
          const instruction = isEntry ? active.instruction : picker.value.trim();
          if (instruction) {
            resolve(instruction);
          }
        });
        picker.show();
      });
      if (instruction) {
        await this.remember(instruction);
      }
      return instruction;
    } finally {
      clearTimeout(timer);
      picker.dispose();
    }
  }

  async remember(instruction: string): Promise<void> {
    const others = this.history().filter((known) => known !== instruction);
    await this.memory.update(HISTORY_KEY, [instruction, ...others].slice(0, MAX_HISTORY));
  }

  /** What was typed comes first, so that Enter means it; earlier instructions follow. */
  private entries(value: string): Entry[] {
    const typed = value.trim();
    const history = this.history()
      .filter((instruction) => instruction !== typed)
      .map((instruction) => ({ label: `$(history) ${instruction}`, instruction, isTyped: false }));
    return typed
      ? [{ label: `$(sparkle) ${typed}`, instruction: typed, isTyped: true, alwaysShow: true }, ...history]
      : history;
  }

  private history(): readonly string[] {
    return this.memory.get<string[]>(HISTORY_KEY, []);
  }
}
