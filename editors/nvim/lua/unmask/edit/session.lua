--- One edit of one buffer, from the request to the decision about its hunks.
local apply = require('unmask.edit.apply')
local client = require('unmask.client')
local hunks = require('unmask.edit.hunks')
local notify = require('unmask.notify')
local position = require('unmask.position')
local render = require('unmask.edit.render')
local review = require('unmask.edit.review')
local track = require('unmask.edit.track')

local M = {}

local INVALID_PARAMS = -32602
local PROGRESS_MS = 250
local num_edits = 0

---@class unmask.Refinement
---@field edit_id string of the edit that it goes on from
---@field review unmask.Review of that edit
---@field instruction string

---@class unmask.EditSession
---@field buf integer
---@field scope unmask.Scope
---@field instruction string
---@field state 'running'|'deciding'|'applying'|'closed'
---@field edit_id string
---@field track unmask.Track
---@field review unmask.Review? the hunks that wait for a decision
---@field preview { settled: string, unsettled: string }?
---@field private offered_tick integer? of an edit that nobody asked for
---@field private refined unmask.Refinement? the one under way
---@field private started integer
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
    local problem = self.track:problem()
    local change, rerun = problem or 'the text inside the edit was changed', problem and '' or ' run the edit again,'
    notify.warn(('%s. Undo that,%s or discard it.'):format(change, rerun))
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
    if not self.track:problem() then
      vim.list_extend(chunks, render.key('rerun', 'run again'))
    end
    return render.hint(self.buf, self.track.first, vim.list_extend(chunks, render.key('reject_all', 'discard')))
  end
  if self.review then
    return self.review:draw()
  end
  local shown = self.preview or { settled = '', unsettled = '' }
  render.preview(self.buf, self.track, shown.settled, shown.unsettled)
  local seconds = (vim.uv.now() - self.started) / 1000
  local chunks = { { ('Unmask: editing, %.1f s'):format(seconds), 'UnmaskHint' } }
  render.hint(self.buf, self.track.first, vim.list_extend(chunks, render.key('reject_all', 'cancel')))
end

--- Counts the seconds while the edit with this id is being made.
---@param edit_id string
function Session:_show_progress(edit_id)
  if self.state == 'running' and self.edit_id == edit_id then
    self:draw()
    vim.defer_fn(function()
      self:_show_progress(edit_id)
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

---@return table argument of `unmask.edit`, of the text as it is now
function Session:_argument(encoding)
  local range = position.rows_range(self.buf, self.track.first, self.track.first + self.track.count, encoding)
  if self.scope.kind == 'insert' then
    range['end'] = range.start
  end
  return {
    uri = vim.uri_from_bufnr(self.buf),
    range = range,
    instruction = self.refined and self.refined.instruction or self.instruction,
    version = vim.lsp.util.buf_versions[self.buf],
    originalSha256 = apply.hash(self.buf, range, encoding),
    apply = false,
    editId = self.edit_id,
    refine = self.refined and self.refined.edit_id or nil,
  }
end

--- Sends the edit.
function Session:send()
  local server = client.of(self.buf)
  if not server then
    notify.error('the language server is not running. `:Unmask restart` starts it.')
    return self:close()
  end
  num_edits = num_edits + 1
  local edit_id = ('nvim-%d-%d'):format(vim.uv.os_getpid(), num_edits)
  self.edit_id, self.state, self.review, self.preview = edit_id, 'running', nil, nil
  self.started = vim.uv.now()
  local base = self.track.first
  local argument = self:_argument(server.offset_encoding)
  self.cancel = client.execute('unmask.edit', argument, function(problem, answer, code)
    if self.state == 'running' and self.edit_id == edit_id then
      self:_on_answer(base, problem, answer, code)
    end
  end, self.buf)
  self:_show_progress(edit_id)
end

--- Shows an edit that the server made unasked: it waits for a decision, and the cursor stays where it is.
---@param answer table
function Session:offer(answer)
  self.edit_id, self.state = answer.editId, 'deciding'
  self.offered_tick = vim.api.nvim_buf_get_changedtick(self.buf)
  self.review = review.new(self.track, hunks.from_edits(answer.edits, self.track.first, self.track.lines))
  self:draw()
end

---@return boolean whether nothing in the buffer was changed since the edit was offered
function Session:is_as_offered()
  return self.offered_tick == vim.api.nvim_buf_get_changedtick(self.buf)
end

--- Nothing came of it: back to the hunks that were refined, else the edit is over.
function Session:_give_up()
  local before = self.refined
  if not before then
    return self:close()
  end
  self.edit_id, self.review, self.refined, self.state = before.edit_id, before.review, nil, 'deciding'
  self:draw()
end

---@param base integer the first row when the edit was sent
---@param problem string?
---@param answer table?
---@param code integer?
function Session:_on_answer(base, problem, answer, code)
  if self.refined and code == INVALID_PARAMS then
    problem = 'this language server cannot refine an edit: update it, or run the edit again. It said: ' .. problem
  end
  if problem or not answer then
    notify.error(problem or 'the server gave no answer.')
    return self:_give_up()
  end
  if answer.notice and answer.notice ~= '' then
    notify.info(answer.notice)
  end
  if answer.status ~= 'ready' then
    local is_harmless = answer.status == 'empty' or answer.status == 'cancelled'
    local say = is_harmless and notify.info or notify.warn
    say(answer.message)
    return self:_give_up()
  end
  if self.refined then
    -- Made again, it is made of the text without the proposal: that takes both.
    self.instruction = self.instruction .. '\n' .. self.refined.instruction
  end
  self.refined, self.state = nil, 'deciding'
  self.review = review.new(self.track, hunks.from_edits(answer.edits, base, self.track.lines))
  self:draw()
  if not self.track.is_stale and vim.api.nvim_get_mode().mode == 'n' then
    self.review:go_to(1)
  end
end

---@param step integer 1 or -1
function Session:move(step)
  if self.state == 'deciding' and not self.track.is_stale then
    self.review:move(step)
  end
end

---@return boolean
function Session:_may_decide()
  if self.state ~= 'deciding' then
    return false
  end
  self.track.is_stale = not self.track:is_intact()
  if self.track.is_stale then
    notify.warn('the text inside the edit was changed, so it cannot be accepted. Run it again or discard it.')
  end
  return not self.track.is_stale
end

--- Decides about the hunk at the cursor; after the last one the edit is applied.
---@param decision 'accepted'|'rejected'
function Session:decide(decision)
  if self:_may_decide() and self.review:decide(decision) then
    self:_finish()
  end
end

--- Accepts every hunk that was not rejected.
function Session:accept_all()
  if self:_may_decide() then
    self.review:accept_open()
    self:_finish()
  end
end

--- Rejects everything; an edit under way is cancelled.
function Session:reject_all()
  if self.state == 'applying' then
    return
  end
  local waiting = self.edit_id
  if self.state == 'running' then
    self.cancel()
    notify.info('the edit was cancelled.')
    waiting = self.refined and self.refined.edit_id
  end
  if waiting then
    client.execute('unmask.rejectEdit', { editId = waiting })
  end
  self:close()
end

function Session:_finish()
  local _, numbers = self.review:accepted()
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

--- Makes the edit anew, of the text as it is now.
function Session:rerun()
  if self.state == 'deciding' then
    local problem = self.track:problem()
    if problem then
      return notify.warn(problem .. '. Undo that, or discard the edit and start another one.')
    end
    client.execute('unmask.rejectEdit', { editId = self.edit_id })
    self:_follow(self.track.first, self.track.first + self.track.count)
    self:send()
  end
end

--- Goes on from the proposed text with a further instruction.
---@param instruction string
function Session:refine(instruction)
  if self:_may_decide() then
    self.refined = { edit_id = self.edit_id, review = self.review, instruction = instruction }
    self:send()
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
