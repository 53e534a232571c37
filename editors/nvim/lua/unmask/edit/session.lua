--- One edit of one buffer, from the request to the decision about its hunks.
local apply = require('unmask.edit.apply')
local client = require('unmask.client')
local hunks = require('unmask.edit.hunks')
local notify = require('unmask.notify')
local position = require('unmask.position')
local render = require('unmask.edit.render')
local track = require('unmask.edit.track')

local M = {}

local INVALID_PARAMS = -32602
local PROGRESS_MS = 250
local num_edits = 0

---@class unmask.EditSession
---@field buf integer
---@field scope unmask.Scope
---@field instruction string
---@field state 'running'|'deciding'|'applying'|'closed'
---@field edit_id string
---@field track unmask.Track
---@field hunks unmask.Hunk[]
---@field active integer
---@field private base integer the first row when the request was sent
---@field private started integer
---@field private preview { settled: string, unsettled: string }?
---@field private cancel fun()
---@field private on_close fun()
local Session = {}
Session.__index = Session

---@param scope unmask.Scope
---@param instruction string
---@param on_close fun()
---@return unmask.EditSession
function M.new(scope, instruction, on_close)
  local self = setmetatable({
    buf = scope.buf,
    scope = scope,
    instruction = instruction,
    state = 'running',
    hunks = {},
    active = 1,
    on_close = on_close,
    cancel = function() end,
  }, Session)
  self:_follow(scope.first, scope.stop)
  return self
end

---@param first integer
---@param stop integer
function Session:_follow(first, stop)
  if self.track then
    self.track:stop()
  end
  self.track = track.new(self.buf, first, stop, function()
    self:_on_track_change()
  end)
end

function Session:_on_track_change()
  if self.state == 'closed' or self.state == 'applying' then
    return
  end
  if self.track.is_gone then
    self.cancel()
    return self:close()
  end
  if self.track.is_stale then
    notify.warn('the text inside the edit was changed. Undo that, run the edit again, or discard it.')
  end
  self:draw()
end

--- Draws the edit as it stands.
function Session:draw()
  if self.state == 'closed' then
    return render.clear(self.buf)
  end
  if self.track.is_stale then
    render.clear(self.buf)
    local chunks = { { 'Unmask: the text was changed', 'UnmaskStale' } }
    vim.list_extend(chunks, render.key('rerun', 'run again'))
    return render.hint(self.buf, self.track.first, vim.list_extend(chunks, render.key('reject_all', 'discard')))
  end
  if self.state == 'running' then
    local shown = self.preview or { settled = '', unsettled = '' }
    render.preview(self.buf, self.track, shown.settled, shown.unsettled)
    local chunks = { { ('Unmask: editing, %.1f s'):format((vim.uv.now() - self.started) / 1000), 'UnmaskHint' } }
    return render.hint(self.buf, self.track.first, vim.list_extend(chunks, render.key('reject_all', 'cancel')))
  end
  render.hunks(self.buf, self.track.first, self.hunks, self.active)
end

function Session:_show_progress()
  if self.state == 'running' then
    self:draw()
    vim.defer_fn(function()
      self:_show_progress()
    end, PROGRESS_MS)
  end
end

---@param params table what `$/unmask/editPreview` carries
function Session:on_preview(params)
  if self.state == 'running' and params.editId == self.edit_id and not params.done then
    self.preview = { settled = params.settled, unsettled = params.unsettled }
    self:draw()
  end
end

--- Sends the edit, of the text as it is now.
---@param refine? string the id of the edit whose text the model starts from
function Session:send(refine)
  local server = client.of(self.buf)
  if not server then
    notify.error('the language server is not running. `:Unmask restart` starts it.')
    return self:close()
  end
  local encoding = server.offset_encoding
  local first, stop = self.track.first, self.track.first + self.track.count
  local range = position.rows_range(self.buf, first, stop, encoding)
  if self.scope.kind == 'insert' then
    range['end'] = range.start
  end
  num_edits = num_edits + 1
  self.edit_id = ('nvim-%d-%d'):format(vim.uv.os_getpid(), num_edits)
  self.state, self.base, self.started, self.preview = 'running', first, vim.uv.now(), nil
  local sent = self.edit_id
  self.cancel = client.execute('unmask.edit', {
    uri = vim.uri_from_bufnr(self.buf),
    range = range,
    instruction = self.instruction,
    version = vim.lsp.util.buf_versions[self.buf],
    originalSha256 = apply.hash(self.buf, range, encoding),
    apply = false,
    editId = self.edit_id,
    refine = refine,
  }, function(problem, answer, code)
    if self.state == 'running' and self.edit_id == sent then
      self:_on_answer(problem, answer, refine and code == INVALID_PARAMS)
    end
  end, self.buf)
  self:_show_progress()
end

---@param problem string?
---@param answer table?
---@param cannot_refine boolean?
function Session:_on_answer(problem, answer, cannot_refine)
  if cannot_refine then
    notify.error('this language server cannot refine an edit (' .. problem .. '). Update it, or run the edit again.')
    return self:close()
  end
  if problem or not answer then
    notify.error(problem or 'the server gave no answer.')
    return self:close()
  end
  if answer.notice and answer.notice ~= '' then
    notify.info(answer.notice)
  end
  if answer.status ~= 'ready' then
    local say = (answer.status == 'empty' or answer.status == 'cancelled') and notify.info or notify.warn
    say(answer.message)
    return self:close()
  end
  self.hunks = hunks.from_edits(answer.edits, self.base, self.track.lines)
  self.state, self.active = 'deciding', 1
  self:draw()
  if not self.track.is_stale and vim.api.nvim_get_mode().mode == 'n' then
    self:go_to(1)
  end
end

---@param index integer
---@return integer row
function Session:_row_of(index)
  local hunk = self.hunks[index]
  local row = self.track.first + hunk.offset
  local last = vim.api.nvim_buf_line_count(self.buf) - 1
  return math.max(0, math.min(#hunk.old == 0 and row - 1 or row, last))
end

--- Puts the cursor on a hunk, where the buffer is the current one.
---@param index integer
function Session:go_to(index)
  self.active = index
  if vim.api.nvim_get_current_buf() == self.buf and #self.hunks > 0 then
    vim.cmd("normal! m'")
    vim.api.nvim_win_set_cursor(0, { self:_row_of(index) + 1, 0 })
  end
  self:draw()
end

--- The hunk at the cursor, else the active one.
---@return integer index
function Session:_current()
  if vim.api.nvim_get_current_buf() == self.buf then
    local row = vim.api.nvim_win_get_cursor(0)[1] - 1
    for index, hunk in ipairs(self.hunks) do
      local first = self:_row_of(index)
      if row >= first and row < first + math.max(1, #hunk.old) then
        return index
      end
    end
  end
  return self.active
end

---@param step integer 1 or -1
function Session:move(step)
  if self.state == 'deciding' then
    self:go_to((self:_current() - 1 + step) % #self.hunks + 1)
  end
end

---@return boolean
function Session:_refuses_decisions()
  if self.state == 'deciding' and not self.track.is_stale and not self.track:is_intact() then
    self.track.is_stale = true
  end
  if self.track.is_stale then
    notify.warn('the text inside the edit was changed, so it cannot be accepted. Run it again or discard it.')
  end
  return self.state ~= 'deciding' or self.track.is_stale
end

--- Decides about the hunk at the cursor and goes to the next one; after the last one the edit is applied.
---@param decision 'accepted'|'rejected'
function Session:decide(decision)
  if self:_refuses_decisions() then
    return
  end
  local index = self:_current()
  self.hunks[index].decision = decision
  for step = 1, #self.hunks do
    local other = (index - 1 + step) % #self.hunks + 1
    if not self.hunks[other].decision then
      return self:go_to(other)
    end
  end
  self:_finish()
end

--- Accepts every hunk that was not rejected.
function Session:accept_all()
  if self:_refuses_decisions() then
    return
  end
  for _, hunk in ipairs(self.hunks) do
    hunk.decision = hunk.decision or 'accepted'
  end
  self:_finish()
end

--- Rejects everything; an edit under way is cancelled.
function Session:reject_all()
  if self.state == 'applying' then
    return
  end
  if self.state == 'running' then
    self.cancel()
    notify.info('the edit was cancelled.')
  else
    client.execute('unmask.rejectEdit', { editId = self.edit_id })
  end
  self:close()
end

---@return unmask.Hunk[] accepted
---@return integer[] numbers from 0
function Session:_accepted()
  local accepted, numbers = {}, {}
  for index, hunk in ipairs(self.hunks) do
    if hunk.decision == 'accepted' then
      table.insert(accepted, hunk)
      table.insert(numbers, index - 1)
    end
  end
  return accepted, numbers
end

function Session:_finish()
  local _, numbers = self:_accepted()
  if #numbers == 0 then
    notify.info('nothing was changed.')
    return self:reject_all()
  end
  self.state = 'applying'
  client.execute('unmask.acceptEdit', { editId = self.edit_id, hunks = numbers }, function(problem, answer)
    self:close()
    if problem or not answer then
      notify.error((problem or 'the server gave no answer.') .. ' Nothing was changed.')
    elseif answer.status ~= 'applied' then
      notify.warn(answer.message .. ' Nothing was changed.')
    end
  end, self.buf)
end

--- The last check before the text is changed: the changes are the accepted hunks, of the very text they were made for.
---@param edits lsp.TextEdit[]
---@return string? problem
function Session:check(edits)
  if not self.track:is_intact() then
    return 'the text was changed meanwhile'
  end
  local accepted = self:_accepted()
  local coming = hunks.from_edits(edits, self.track.first, self.track.lines)
  if #coming ~= #accepted then
    return ('%d changes came where %d were accepted'):format(#coming, #accepted)
  end
  for index, hunk in ipairs(coming) do
    local chosen = accepted[index]
    local is_same = hunk.offset == chosen.offset
      and vim.deep_equal(hunk.old, chosen.old)
      and vim.deep_equal(hunk.new, chosen.new)
    if not is_same then
      return ('change %d is not the one that was accepted'):format(index)
    end
  end
end

--- Puts the accepted hunks into the buffer; `check` has been passed. Whole lines, so that it does not matter how the
--- end of the file is written as a position.
function Session:apply()
  local accepted = self:_accepted()
  for index = #accepted, 1, -1 do
    local hunk = accepted[index]
    local row = self.track.first + hunk.offset
    vim.api.nvim_buf_set_lines(self.buf, row, row + #hunk.old, true, hunk.new)
  end
end

--- Makes the edit anew, of the text as it is now.
function Session:rerun()
  if self.state == 'deciding' then
    client.execute('unmask.rejectEdit', { editId = self.edit_id })
    self:_follow(self.track.first, self.track.first + self.track.count)
    self.hunks = {}
    self:send()
  end
end

--- Goes on from the proposed text with a further instruction.
---@param instruction string
function Session:refine(instruction)
  if not self:_refuses_decisions() then
    self.instruction = instruction
    self.hunks = {}
    self:send(self.edit_id)
  end
end

function Session:close()
  if self.state ~= 'closed' then
    self.state = 'closed'
    self.track:stop()
    render.clear(self.buf)
    self.on_close()
  end
end

return M
