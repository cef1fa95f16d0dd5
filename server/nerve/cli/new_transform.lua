--- Changes the scores of a token classification model before its labels are chosen.
--
-- Nerve calls Postprocess once for each request. Tensor methods count axes from 1.
--
-- @param arr  Tensor of the model's logits, float32, of shape [texts, tokens, labels]:
--             axis 1: the request's texts
--             axis 2: their tokens; [CLS], [SEP] and the padding of shorter texts are still in it,
--                     and are dropped afterwards
--             axis 3: one score for each label, in the order of id2label in config.json
-- @return     one of
--             - a Tensor, or nested tables of numbers, of the same shape as arr: the label of a token
--               is then the one with the highest number
--             - a Tensor of shape [texts, tokens] of label numbers from 1 on: the chosen labels
function Postprocess(arr)
    -- Probabilities instead of logits:
    -- arr = arr:softmax(3)

    -- Only the best label of each token, for short answers:
    -- arr = arr:argmax(3)

    return arr
end
