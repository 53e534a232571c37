// The administration's calls, as /v1/admin documents them.

import { get, request } from "../api.js";

const at = (...parts) => `/v1/admin/${parts.map(encodeURIComponent).join("/")}`;

export const limits = () => get(at("limits"));
export const users = async () => (await get(at("users"))).users;
export const addUser = (user) => request("POST", at("users"), user);
export const changeUser = (name, changes) => request("PATCH", at("users", name), changes);
export const removeUser = (name) => request("DELETE", at("users", name));
export const tokens = async (user) => (await get(`${at("tokens")}?user=${encodeURIComponent(user)}`)).tokens;
export const makeToken = (wanted) => request("POST", at("tokens"), wanted);
export const revokeToken = (id) => request("DELETE", at("tokens", String(id)));
export const workspaces = async () => (await get(at("workspaces"))).workspaces;
export const addWorkspace = (name) => request("POST", at("workspaces"), { name });
export const removeWorkspace = (name) => request("DELETE", at("workspaces", name));
export const audit = async (before) => (await get(`${at("audit")}?limit=100${before ? `&before=${before}` : ""}`)).audit;
