--- `workspace/applyEdit`, checked. Neovim's own handler never refuses a change of version 0 and says "applied" to stale
--- ones; here a change is made only to the version and, for our edits, the very text that it was made for.
local position = require('unmask.position')

local M = {}

---@param buf integer
---@param version integer?
---@return string? problem
local function check_version(buf, version)
  local now = vim.lsp.util.buf_versions[buf]
  if type(version) ~= 'number' then
    return 'the change names no version'
  end
  if version ~= now then
    return ('the change is for version %d of the text, which is at version %s'):format(version, now)
  end
end

---@param change lsp.TextDocumentEdit
---@return integer? buf
---@return string? problem
---@return unmask.EditSession? session the edit that was accepted, if the change is its own
local function check(change)
  if not change.textDocument or not change.edits then
    return nil, 'only changes of text are applied, no files are made, renamed or deleted'
  end
  local buf = vim.uri_to_bufnr(change.textDocument.uri)
  if not vim.api.nvim_buf_is_loaded(buf) then
    return nil, 'the buffer was closed'
  end
  if not vim.bo[buf].modifiable then
    return nil, 'the buffer is not modifiable'
  end
  local problem = check_version(buf, change.textDocument.version)
  local session = require('unmask.edit').of(buf)
  if not session or session.state ~= 'applying' then
    return buf, problem, nil
  end
  return buf, problem or session.review:check(change.edits), session
end

---@param params lsp.ApplyWorkspaceEditParams
---@param ctx lsp.HandlerContext
---@return lsp.ApplyWorkspaceEditResult
function M.handle(params, ctx)
  local client = assert(vim.lsp.get_client_by_id(ctx.client_id))
  local changes = params.edit.documentChanges
  if not changes or #changes ~= 1 then
    return { applied = false, failureReason = 'one versioned change of one document was expected' }
  end
  local buf, problem, session = check(changes[1])
  if problem or not buf then
    return { applied = false, failureReason = problem }
  end
  local break_undo = require('unmask.ghost.accept').break_undo
  break_undo(buf)
  if session then
    session.review:apply()
  else
    vim.lsp.util.apply_text_edits(changes[1].edits, buf, client.offset_encoding)
  end
  break_undo(buf)
  return { applied = true }
end

---@param buf integer
---@param range lsp.Range
---@param encoding string
---@return string hash of the text of a range, as the server computes it
function M.hash(buf, range, encoding)
  return vim.fn.sha256(position.text_in(buf, range, encoding))
end

return M
