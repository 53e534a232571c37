// Choosing the model: those the server knows, with what is downloaded and what they are for.

import * as vscode from "vscode";
import type { ModelInfo } from "../protocol";
import type { Connection } from "../server/connection";

const LIST = "unmask.listModels";

interface Entry extends vscode.QuickPickItem {
  readonly name: string;
}

export async function chooseModel(server: Connection): Promise<void> {
  const task = await vscode.window.showQuickPick(
    [
      { label: "Suggestions", description: "unmask.engine.model", setting: "model", task: "complete" },
      { label: "Edits", description: "unmask.engine.editModel", setting: "editModel", task: "edit" },
    ],
    { title: "Unmask: which model do you want to change?" },
  );
  if (!task) {
    return;
  }
  const settings = vscode.workspace.getConfiguration("unmask.engine");
  const present = settings.get(task.setting, "");
  const name = server.knows(LIST)
    ? await pick(server, present, task.task, task.label)
    : await typeName(present, task.label);
  if (name !== undefined && name !== present) {
    await settings.update(task.setting, name || undefined, vscode.ConfigurationTarget.Global);
  }
}

async function pick(server: Connection, present: string, task: string, label: string): Promise<string | undefined> {
  const models = await server.execute<readonly ModelInfo[]>(LIST, {});
  const isMadeFor = ({ tasks }: ModelInfo): boolean =>
    tasks.length === 0 || tasks.some((each) => each.startsWith(task));
  // What is here or comes by default before what would have to be fetched: the list is long, and shows ten at a time.
  const rank = (model: ModelInfo): number => (model.isPresent || model.isDefault ? 0 : 2) + (isMadeFor(model) ? 0 : 1);
  const inOrder = [...models].sort((a, b) => rank(a) - rank(b));
  const entries = inOrder.map((model) => toEntry(model, present, isMadeFor(model)));
  const byDefault: Entry = { label: "$(circle-outline) Default", description: "what the engine chooses", name: "" };
  const other: Entry = { label: "$(folder) Another model…", description: "a name or the path of a folder", name: "?" };
  const chosen = await vscode.window.showQuickPick([...entries, byDefault, other], {
    title: `Unmask: model for ${label.toLowerCase()}`,
    placeHolder: present ? `Now: ${present}` : "Now: the engine's default",
    matchOnDescription: true,
    matchOnDetail: true,
  });
  return chosen?.name === "?" ? typeName(present, label) : chosen?.name;
}

function toEntry(model: ModelInfo, present: string, isMadeForIt: boolean): Entry {
  const size = model.parameters === undefined ? "" : formatParameters(model.parameters);
  const notes = [
    model.isDefault && isMadeForIt ? "default" : "",
    isMadeForIt ? "" : `made for ${model.tasks.join(" and ")}`,
    model.isPresent ? "" : `not downloaded: unmask pull ${model.name}`,
  ];
  return {
    name: model.name,
    label: `${model.name === present ? "$(check)" : model.isPresent ? "$(package)" : "$(cloud-download)"} ${model.name}`,
    description: [size, model.licence, ...notes].filter(Boolean).join(" · "),
    ...(model.title && { detail: model.title }),
  };
}

function formatParameters(parameters: number | string): string {
  return typeof parameters === "string" ? parameters : `${(parameters / 1e9).toFixed(1)} B parameters`;
}

async function typeName(present: string, label: string): Promise<string | undefined> {
  const answer = await vscode.window.showInputBox({
    title: `Unmask: model for ${label.toLowerCase()}`,
    prompt:
      "A name that `unmask models` lists, or the path of a folder with a checkpoint. Empty: the engine's default.",
    value: present,
  });
  return answer?.trim();
}
